"""Triplets <unsafe, censored, benign>: reading them, censoring, and making them."""
