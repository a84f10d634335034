"""Precision of an edit's computation and frozen weights."""

from __future__ import annotations

import torch

from safegen.editing.settings import EditSettings
from safegen.models.options import Precision

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def frozen_dtype(settings: EditSettings) -> torch.dtype:
    """Precision of the frozen weights (default: the compute precision), but for those in 8 bits."""
    kept = settings.computation.kept_precision
    return DTYPES[settings.computation.precision if kept == "int8" else kept]


def autocast(settings: EditSettings, device: torch.device) -> torch.autocast:
    """Autocast context of the compute precision."""
    enabled = settings.computation.precision != "fp32"
    return torch.autocast(device.type, DTYPES[settings.computation.precision], enabled=enabled)
