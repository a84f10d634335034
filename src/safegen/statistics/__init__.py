"""What figures need to be believed: confidence intervals and paired tests."""
