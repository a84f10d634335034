"""PyTorch's public interface alone gives the same pictures and the same training."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import safegen
from safegen.editing.latents import TripletLatents
from safegen.editing.memory import lean_layers
from safegen.editing.run import plan
from safegen.editing.settings import EditSettings
from safegen.editing.trainer import Edit
from safegen.models import onednn
from safegen.models.kernels import use_plain_kernels
from safegen.models.sampling import ImageRequest, SamplingSettings

SETTINGS = EditSettings.of(
    steps=2, unsafe_batch=2, warmup_steps=1,
    gradient_checkpointing="selective",
)  # fmt: skip


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Switches to plain kernels, and breaks what is then not to be used."""

    def switch() -> None:
        use_plain_kernels()
        for name in ("selective", "prediction"):
            monkeypatch.setitem(sys.modules, f"safegen.editing.memory.{name}", None)
        monkeypatch.setattr(onednn, "_multiply", None)
        monkeypatch.setattr(lean_layers, "_lean_forward", None)

    yield switch
    use_plain_kernels(False)


def test_pictures_are_the_same_but_for_rounding(
    tiny_pipeline: Any, plainly: Callable[[], None]
) -> None:
    def picture() -> np.ndarray:
        request, settings = ImageRequest("a cat", 1), SamplingSettings(steps=4)
        ((_, image),) = safegen.generate(tiny_pipeline, [request], settings)
        return image.astype(int)

    fast = picture()
    plainly()
    assert abs(picture() - fast).max() <= 1


def test_training_is_the_same_but_for_rounding(
    build_pipeline: Callable[..., Any],
    tiny_latents: TripletLatents,
    plainly: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def losses() -> list[float]:
        records = Edit(build_pipeline(width=64), tiny_latents, SETTINGS).run()
        return [loss for record in records for loss in (record.redirect, record.preserve)]

    monkeypatch.setattr(lean_layers, "SMALL", 0)
    fast = losses()
    plainly()
    assert losses() == pytest.approx(fast, rel=1e-4, abs=1e-8)
    told = plan(build_pipeline(), tiny_latents, SETTINGS)
    assert told.predicted is told.measured is None
    assert told.seconds > 0
