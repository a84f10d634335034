"""The edit: training self-attention so that the unsafe turns into the censored."""
