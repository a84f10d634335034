"""Triplets <unsafe, censored, benign>: reading them, censoring, and making them."""

from typing import Literal

Censoring = Literal["pixelate", "blur", "fill"]
"""Method that makes a region unrecognisable."""
