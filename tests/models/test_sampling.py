from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safegen.errors import SafegenError
from safegen.models.sampling import (
    SAMPLERS,
    ImageRequest,
    SamplingSettings,
    generate,
    sample_seed,
)

REQUESTS = [ImageRequest(text, seed) for seed, text in enumerate(["a cat", "the snow", "", "a"])]


def _pictures(pipeline: Any, requests: list[ImageRequest], batch: int, **how: Any) -> Any:
    settings = SamplingSettings(steps=3, **how)
    return {r: image for r, image in generate(pipeline, requests, settings, batch)}  # noqa: C416


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_pictures_depend_on_neither_batch_nor_order(tiny_pipeline: Any, sampler: str) -> None:
    together = _pictures(tiny_pipeline, REQUESTS, 4, sampler=sampler)
    alone = _pictures(tiny_pipeline, REQUESTS[::-1], 1, sampler=sampler)
    for request in REQUESTS:
        difference = together[request].astype(int) - alone[request].astype(int)
        assert abs(difference).max() <= 1
    assert not np.array_equal(together[REQUESTS[0]], together[REQUESTS[3]])


def test_agrees_with_the_pipelines_own_call(tiny_pipeline: Any) -> None:
    ours = _pictures(tiny_pipeline, REQUESTS[:1], 1, guidance_scale=4.0)[REQUESTS[0]]
    theirs = tiny_pipeline(
        "a cat",
        num_inference_steps=3,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]
    np.testing.assert_array_equal(ours, (theirs * 255).round().astype(np.uint8))


def test_what_schedule_and_memory_cannot_hold_is_refused_before_drawing(
    tiny_pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SafegenError, match=r"steps must be at most 1000, .* not 1001"):
        list(generate(tiny_pipeline, REQUESTS, SamplingSettings(steps=1001)))
    # Each picture takes at least 2 tensors (8, 16, 16) of 4 bytes.
    monkeypatch.setattr("safegen.models.sampling._free_memory", lambda _: 3 * 16384 + 1)
    assert len(_pictures(tiny_pipeline, REQUESTS, 3)) == 4
    with pytest.raises(SafegenError, match=r"4 pictures at once .* give a batch of at most 3"):
        _pictures(tiny_pipeline, REQUESTS, 32)


def test_the_scheduler_is_put_back(tiny_pipeline: Any) -> None:
    scheduler = tiny_pipeline.scheduler
    _pictures(tiny_pipeline, REQUESTS[:1], 1, sampler="dpm++")
    assert tiny_pipeline.scheduler is scheduler


@given(text=st.text(max_size=20), sample=st.integers(0, 100), base=st.integers(0, 100))
def test_seeds_are_stable_and_differ(text: str, sample: int, base: int) -> None:
    seed = sample_seed(text, sample, base)
    assert seed == sample_seed(text, sample, base)
    assert seed != sample_seed(text, sample + 1, base)
    assert 0 <= seed < 2**48


@pytest.mark.parametrize(
    "how",
    [
        {"steps": 0}, {"guidance_scale": 0.5}, {"guidance_scale": float("nan")},
        {"sampler": "magic"},
    ],
)  # fmt: skip
def test_bad_settings_are_refused(how: dict[str, Any]) -> None:
    with pytest.raises(SafegenError):
        SamplingSettings(**how)


@pytest.mark.parametrize(
    ("output", "how", "message"),
    [
        (float("nan"), {}, "not finite.*--precision float32"),
        (torch.OutOfMemoryError("CUDA out of memory\nof 80 GiB"), {}, r"of memory\).*--batch"),
        (RuntimeError(), {}, r"4 pictures could not be drawn \(RuntimeError\)"),
        (None, {"height": 17}, r"could not be drawn \(`height` and `width` have to be divisible"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_a_line(
    tiny_pipeline: Any, output: Any, how: dict[str, Any], message: str
) -> None:
    def broken(_: Any, __: Any, result: Any) -> None:
        if isinstance(output, Exception):
            raise output
        if output is not None:
            result[0].fill_(output)

    tiny_pipeline.unet.register_forward_hook(broken)
    with pytest.raises(SafegenError, match=message) as caught:
        _pictures(tiny_pipeline, REQUESTS, 4, **how)
    assert "\n" not in str(caught.value)
