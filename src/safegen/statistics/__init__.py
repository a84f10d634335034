"""Statistics: confidence intervals, paired tests, Fréchet distance, cosine similarity."""
