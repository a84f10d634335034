"""Pictures as files, with a manifest that says how each was made."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from safegen.errors import SafegenError
from safegen.files import write_atomically
from safegen.models.sampling import ImageRequest, SamplingSettings, sample_seed
from safegen.version import __version__


@dataclass(frozen=True)
class ImageJob:
    """One picture file to make."""

    name: str
    request: ImageRequest
    sample: int


def read_prompts(path: Path) -> list[str]:
    """The non-empty lines of a text file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise SafegenError(f"{path}: no such prompt file; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SafegenError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise SafegenError(f"{path}: holds no prompt; write one a line")
    return prompts


def resolve_prompts(prompts: Sequence[str], samples: int, seed: int) -> list[ImageJob]:
    """Jobs for all samples of all prompts; a picture's seed follows from its text and number."""
    if not prompts:
        raise SafegenError("no prompt given; use --prompt or --prompts")
    return [
        ImageJob(
            f"{number:05d}-{sample:02d}.png",
            ImageRequest(text, sample_seed(text, sample, seed)),
            sample,
        )
        for number, text in enumerate(prompts)
        for sample in range(samples)
    ]


def png_with_parameters(
    image: np.ndarray, request: ImageRequest, settings: SamplingSettings
) -> bytes:
    """A PNG whose text chunk ``parameters`` is in the form that web UIs write and read."""
    height, width = image.shape[:2]
    parameters = (
        f"{request.prompt}\nNegative prompt: {settings.negative_prompt}\n"
        f"Steps: {settings.steps}, Sampler: {settings.sampler}, CFG scale: {settings.guidance:g}, "
        f"Seed: {request.seed}, Size: {width}x{height}"
    )
    text = PngInfo()
    text.add_itxt("parameters", parameters)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def generate_files(
    pipeline: Any,
    jobs: Sequence[ImageJob],
    settings: SamplingSettings,
    folder: Path,
    model: str,
    patch: Path | None,
    batch: int,
) -> Iterator[Path]:
    """Write every picture, then ``manifest.json``; yields each picture's path."""
    from safegen.editing.patch import Patch, apply
    from safegen.models.anatomy import denoiser_of, fingerprint
    from safegen.models.sampling import generate

    base = fingerprint(denoiser_of(pipeline))
    if patch is not None:
        apply(pipeline, Patch.load(patch))
    pictures = generate(pipeline, [job.request for job in jobs], settings, batch)
    for job, (_, image) in zip(jobs, pictures, strict=True):
        write_atomically(folder / job.name, png_with_parameters(image, job.request, settings))
        yield folder / job.name
    manifest = {
        "model": model,
        "fingerprint": base,
        "patch": str(patch) if patch else None,
        "settings": asdict(settings),
        "version": __version__,
        "images": [{"file": job.name, "sample": job.sample, **asdict(job.request)} for job in jobs],
    }
    write_atomically(folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")
