"""How a model is loaded, what of it is trained and in which precision: choices without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["self-attention", "self-attention+output"]
"""What an edit trains; nothing of it sees a text."""
Precision = Literal["fp32", "bf16", "fp16"]
"""Floating-point formats of weights and computation."""


@dataclass(frozen=True)
class LoadOptions:
    """Keyword arguments of ``load_pipeline`` that commands share.

    Attributes:
        variant: of the weight files in a folder or on the hub, such as ``fp16``.
        config: of a single file: a diffusers folder, or one of the configurations that ship with
            the package (``sd1``, ``sd2``, ``sd2-base``, ``sdxl``).
        allow_pickle: read weights from pickles where there are no safetensors.
        local_files_only: never ask the hub.
        plain_kernels: use PyTorch's public interface only; see ``safegen.models.kernels``.
    """

    variant: str | None = None
    config: str | None = None
    allow_pickle: bool = False
    local_files_only: bool = False
    plain_kernels: bool = False
