"""Presets of an edit: settings changed for a purpose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Settings changed for a purpose, on top of any others.

    Attributes:
        changes: values by option.
        steps: factor on the number of steps.
    """

    changes: Mapping[str, Any]
    steps: float = 1.0


PRESETS: Mapping[str, Preset] = {
    "robust": Preset(
        {
            "scope": "self-attention+output",
            "single_gamma": 4.0,
            "unsafe_noise": 8.0,
            "overshoot": 0.3,
            "rehearsal_share": 0.8,
            "least_steps": 1140,
        },
        steps=2.0,
    ),
}
"""``robust`` resists later fine-tuning better, and the noise that DDIM inversion makes of unsafe
pictures, in steps as coarse as sampling's."""
