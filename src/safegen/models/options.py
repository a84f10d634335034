"""Options of loading, sampling and the trained scope, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from safegen.settings import Settings, setting

Scope = Literal["self-attention", "self-attention+output"]
"""Trained part of the denoiser; no part of it sees a text."""
Precision = Literal["fp32", "bf16", "fp16"]
"""Floating-point formats of weights and computation."""
FrozenPrecision = Literal["fp32", "bf16", "fp16", "int8"]
"""Formats of weights that an edit does not train."""
Sampler = Literal["ddim", "dpm++", "euler"]
MAX_BATCH = 4096
"""Largest batch; more pictures fit no device."""
MAX_SAMPLES = 10_000
"""Most pictures of one prompt; all are listed before the first is drawn."""


@dataclass(frozen=True, kw_only=True)
class LoadOptions(Settings):
    """Options of loading a model: keyword arguments of ``load_pipeline``."""

    variant: str | None = setting(
        None,
        "Variant of the weight files in a folder or on the hub, such as fp16.",
        panel="Loading",
    )
    config: str | None = setting(
        None,
        "Configuration of a single file: sd1, sd2, sd2-base, sdxl, or a diffusers folder "
        "(default: the one that its weights fit).",
        panel="Loading",
    )
    allow_pickle: bool = setting(
        False, "Read weights from pickles too (.ckpt, .bin).", panel="Loading"
    )
    local_files_only: bool = setting(False, "Never ask the hub.", panel="Loading")
    plain_kernels: bool = setting(
        False,
        "Use PyTorch's public interface only: slower, the same but for rounding.",
        panel="Loading",
    )


@dataclass(frozen=True)
class ImageRequest:
    """Request for one picture: its text, and the seed of its initial noise."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class SamplingSettings(Settings):
    """Settings of sampling."""

    steps: int = setting(25, "Denoising steps.", minimum=1)
    guidance_scale: float = setting(
        5.0,
        "Scale of classifier-free guidance for prompts without one of their own; 1 turns it off.",
        minimum=1,
    )
    sampler: Sampler = setting("ddim", "Sampler: ddim, dpm++ or euler.")
    negative_prompt: str = setting("", "Text that guidance moves away from.")
    height: int | None = setting(
        None, "Height in pixels (default: the model's own).", minimum=8, maximum=8192
    )
    width: int | None = setting(
        None, "Width in pixels (default: the model's own).", minimum=8, maximum=8192
    )
