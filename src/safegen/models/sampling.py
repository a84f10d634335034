"""Seeded, batched generation: a picture depends on (model, prompt, seed, settings) only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch

from safegen.errors import SafegenError, first_line
from safegen.models.anatomy import denoiser_of, model_size
from safegen.models.families import family_if_known
from safegen.models.onednn import onednn_layers
from safegen.models.options import ImageRequest as ImageRequest
from safegen.models.options import SamplingSettings as SamplingSettings
from safegen.models.prediction import flow_shift, prediction_of
from safegen.models.texts import TextCondition
from safegen.seeds import sample_seed as sample_seed

SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),  # latents are not bounded by 1
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "euler": ("EulerDiscreteScheduler", {}),
}
# On flow matching's straight path z_t = (1 - t) z_0 + t n, DDIM's step is Euler's: with z_0 and n
# as predicted by v, (1 - t') z_0 + t' n = z_t + (t' - t) v.
FLOW_SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("FlowMatchEulerDiscreteScheduler", {}),
    "dpm++": (
        "DPMSolverMultistepScheduler",
        {
            "algorithm_type": "dpmsolver++",
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
        },
    ),
    "euler": ("FlowMatchEulerDiscreteScheduler", {}),
}


@dataclass(frozen=True)
class Sample:
    """A generated picture.

    Attributes:
        request: request of the picture.
        image: uint8 array (H, W, 3).
        blocked: whether the pipeline's safety checker blacked it out.
    """

    request: ImageRequest
    image: np.ndarray
    blocked: bool


def generate(
    pipeline: Any,
    requests: Sequence[ImageRequest],
    settings: SamplingSettings,
    batch_size: int = 32,
) -> Iterator[tuple[ImageRequest, np.ndarray]]:
    """Yield each request with its picture, uint8 (H, W, 3), in order.

    The pipeline's own call runs, so hooks and filters on it act; each picture's noise comes from
    its own CPU generator.
    """
    for sample in generate_samples(pipeline, requests, settings, batch_size):
        yield sample.request, sample.image


def generate_samples(
    pipeline: Any,
    requests: Sequence[ImageRequest],
    settings: SamplingSettings,
    batch_size: int = 32,
    texts: TextCondition | None = None,
) -> Iterator[Sample]:
    """Yield the pictures of ``generate`` with the result of the pipeline's safety checker.

    Conditions of N texts replace the requests' prompts.
    """
    scheduler = pipeline.scheduler
    _check_sizes(pipeline, min(batch_size, len(requests)), settings)
    pipeline.scheduler = sampler_for(scheduler, settings.sampler)
    try:
        for start in range(0, len(requests), batch_size):
            rows = slice(start, start + batch_size)
            own = None if texts is None else texts[rows]
            yield from draw_batch(pipeline, requests[rows], settings, texts=own)
    finally:
        pipeline.scheduler = scheduler


def _check_sizes(pipeline: Any, batch: int, settings: SamplingSettings) -> None:
    """Refuse steps beyond the noise schedule and batches beyond memory, before drawing."""
    longest = pipeline.scheduler.config.num_train_timesteps
    if settings.steps > longest:
        raise SafegenError(
            f"steps must be at most {longest}, the length of the model's noise schedule, "
            f"not {settings.steps}"
        )
    config = pipeline.vae.config
    widths = config.get("decoder_block_out_channels") or config.get("block_out_channels")
    saving = [getattr(pipeline.vae, name, False) for name in ("use_slicing", "use_tiling")]
    if not widths or any(saving):
        return
    height, width = (given or model_size(pipeline) for given in (settings.height, settings.width))
    # The decoder's last layer holds its input and output of all pictures in memory.
    needed = 2 * batch * widths[0] * height * width * pipeline.vae.dtype.itemsize
    free = _free_memory(pipeline.device)
    if needed > free:
        raise SafegenError(
            f"{batch} pictures at once take more than {needed >> 20:,} MiB, and "
            f"{free >> 20:,} MiB are free; give a batch of at most {batch * free // needed}"
        )


def _free_memory(device: torch.device) -> int:
    """Free memory of a device in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return int(psutil.virtual_memory().available + psutil.swap_memory().free)


def sampler_for(scheduler: Any, name: str) -> Any:
    """Build a named sampler on the noise schedule of a pipeline's own scheduler.

    Args:
        scheduler: the pipeline's own scheduler.
        name: one of ``SAMPLERS``.
    """
    if prediction_of(scheduler) != "flow":
        kind, options = SAMPLERS[name]
        return _scheduler_class(kind).from_config(scheduler.config, **options)
    kind, options = FLOW_SAMPLERS[name]
    shift = flow_shift(scheduler)
    shifted = {"shift": shift} if kind.startswith("FlowMatch") else {"flow_shift": shift}
    return _scheduler_class(kind).from_config(scheduler.config, **options, **shifted)


def draw_batch(
    pipeline: Any,
    batch: Sequence[ImageRequest],
    settings: SamplingSettings,
    latents: torch.Tensor | None = None,
    texts: TextCondition | None = None,
) -> Iterator[Sample]:
    """Run one pipeline call with the sampler set on it.

    Args:
        pipeline: the pipeline.
        batch: requested pictures.
        settings: sampling settings; the sampler is ignored.
        latents: initial latents (B, C, H, W) instead of noise from the requests' seeds.
        texts: conditions of B texts instead of the requests' prompts.

    Raises:
        SafegenError: the pipeline cannot draw them, for lack of memory or otherwise, or the result
            is not finite.
    """
    family = family_if_known(pipeline)
    packed = None if latents is None else family.packed(latents)
    given: dict[str, Any] = {"latents": packed}
    if latents is None:
        seeds = (request.seed for request in batch)
        given["generator"] = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    if texts is None:
        given["prompt"] = [request.prompt for request in batch]
    else:
        dtype = next(denoiser_of(pipeline).parameters()).dtype
        given |= family.call_conditions(texts.to(pipeline.device, dtype))
    parts = pipeline.components.values()
    networks = [part for part in parts if isinstance(part, torch.nn.Module)]
    with _told(len(batch)), onednn_layers(networks), family.drawing(pipeline, settings):
        output = pipeline(
            num_inference_steps=settings.steps,
            height=settings.height or model_size(pipeline),
            width=settings.width or model_size(pipeline),
            output_type="np",
            **{name: value for name, value in given.items() if value is not None},
            **family.call_options(pipeline, settings, len(batch)),
        )
    images = family.pictures(output)
    if not np.isfinite(images).all():
        raise SafegenError(
            "the model drew pictures that are not finite, as in a precision that is too low for "
            "it; load it with another, such as --precision float32"
        )
    pixels = (np.clip(images, 0, 1) * 255).round().astype(np.uint8)
    checked = getattr(getattr(pipeline, "image_processor", None), "flags", None)
    # Pipelines whose call has no safety checker have no such flags.
    flags = getattr(output, "nsfw_content_detected", checked) or [False] * len(batch)
    for request, image, flag in zip(batch, pixels, flags, strict=True):
        yield Sample(request, image, bool(flag))


@contextmanager
def _told(count: int) -> Iterator[None]:
    """Turn the errors of a pipeline's call into one line."""
    try:
        yield
    except (RuntimeError, ValueError, MemoryError) as error:
        reason, short = first_line(error), isinstance(error, MemoryError | torch.OutOfMemoryError)
        if short or "allocate memory" in reason:
            mend = "draw fewer at once: a smaller --batch, in another --out folder"
        else:
            mend = "see that the model fits its settings and draws in this precision"
        raise SafegenError(f"{count} pictures could not be drawn ({reason}); {mend}") from error


def _scheduler_class(name: str) -> Any:
    import diffusers

    return getattr(diffusers, name)
