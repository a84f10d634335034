"""Denoisers of published models in full size, from their configurations, without values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from safegen.models.shipped import FOLDER
from safegen.models.texts import POOLED, TextCondition

PUBLISHED = Path(__file__).parents[1] / "tests" / "models" / "published.json"


@dataclass(frozen=True)
class Published:
    """A published model, with the sizes of what an edit gives it.

    Attributes:
        kind: class of the denoiser.
        source: folder of its configuration, or its repository in ``PUBLISHED``.
        latent: shape of the latent of the model's own pictures (C, H, W).
        text: tokens and width of the hidden states.
        added: widths of further conditions by name.
    """

    kind: str
    source: Path | str
    latent: tuple[int, int, int]
    text: tuple[int, int]
    added: Mapping[str, int] = field(default_factory=dict)

    def config(self) -> dict[str, Any]:
        """Read the denoiser's configuration."""
        if isinstance(self.source, Path):
            found: dict[str, Any] = json.loads((self.source / "config.json").read_text())
            return found
        every = json.loads(PUBLISHED.read_text("utf-8"))
        return dict(every[self.source]["transformer"])

    def skeleton(self) -> Any:
        """Build the denoiser without values."""
        import diffusers

        with torch.device("meta"):
            return getattr(diffusers, self.kind).from_config(self.config())

    def condition(self, count: int = 1) -> TextCondition:
        """Make texts of zeros, as the denoiser takes them."""
        added = {name: torch.zeros(count, width) for name, width in self.added.items()}
        return TextCondition(torch.zeros(count, *self.text), added=added)


MODELS = {
    "sd1": Published("UNet2DConditionModel", FOLDER / "sd1" / "unet", (4, 64, 64), (77, 768)),
    "sdxl": Published(
        "UNet2DConditionModel",
        FOLDER / "sdxl" / "unet",
        (4, 128, 128),
        (77, 2048),
        {POOLED: 1280, "time_ids": 6},
    ),
    "sd3.5-medium": Published(
        "SD3Transformer2DModel",
        "stabilityai/stable-diffusion-3.5-medium",
        (16, 128, 128),
        (77 + 256, 4096),
        {POOLED: 2048},
    ),
    "flux": Published(
        "FluxTransformer2DModel",
        "black-forest-labs/FLUX.1-dev",
        (16, 128, 128),
        (512, 4096),
        {POOLED: 768},
    ),
}
"""Models by name: Stable Diffusion 1.x at 512 x 512, the others at 1024 x 1024."""
