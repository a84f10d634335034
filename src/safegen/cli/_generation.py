"""Pictures as files, with a manifest that says how each was made."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from safegen.errors import SafegenError
from safegen.files import read_object, write_atomically
from safegen.models.options import ImageRequest, SamplingSettings
from safegen.prompts import PROMPT_SETS, Prompt, PromptSetIdentity, create_prompt_set
from safegen.prompts._places import locate
from safegen.prompts._records import TEXT
from safegen.seeds import sample_seed
from safegen.version import __version__

if TYPE_CHECKING:
    from safegen.defenses import Defense

MANIFEST = "manifest.json"
_PICTURE = re.compile(r"\d+-\d+\.png", re.ASCII)


@dataclass(frozen=True)
class ImageJob:
    """One picture file to make: its name, what to draw, and which sample of which prompt it is."""

    name: str
    request: ImageRequest
    guidance: float
    sample: int
    prompt_id: str


def read_prompts(path: Path) -> list[str]:
    """Read the non-empty lines of a text file."""
    file, _ = locate(str(path), None, None, local_files_only=True)
    prompts = [record.fields["prompt"] for record in TEXT.records(file)]
    if not prompts:
        raise SafegenError(f"{path}: holds no prompt; write one a line")
    return prompts


def text_prompts(texts: Iterable[str]) -> list[Prompt]:
    """Make prompts whose ids, and so seeds, are their texts."""
    return [Prompt(text, text, sample_seed(text)) for text in texts]


def list_prompts(
    source: str | None, *, local_files_only: bool = False
) -> tuple[list[Prompt], PromptSetIdentity | None]:
    """Read a text file with one prompt per line, or a prompt set such as ``i2p:FILE``.

    Returns:
        Prompts, and the identity of the set (None for a text file).
    """
    if source is None:
        return [], None
    name, colon, _ = source.partition(":")
    if colon and (name in PROMPT_SETS.names() or not Path(source).exists()):
        prompts = create_prompt_set(source, local_files_only=local_files_only)
        return list(prompts), prompts.identity
    return text_prompts(read_prompts(Path(source))), None


def resolve_prompts(
    prompts: Sequence[Prompt],
    samples: int,
    settings: SamplingSettings,
    *,
    seed: int | None = None,
    guidance: float | None = None,
) -> list[ImageJob]:
    """List the jobs of all samples of all prompts.

    Args:
        prompts: prompts to draw.
        samples: pictures per prompt.
        settings: sampling settings; their guidance scale is for prompts without their own.
        seed: base of all seeds; replaces the prompts' own seeds.
        guidance: guidance scale of all prompts; replaces their own.

    Raises:
        SafegenError: there is no prompt, or one has a guidance below 1.
    """
    if not prompts:
        raise SafegenError("no prompt given; use --prompt or --prompts")
    jobs = []
    for number, prompt in enumerate(prompts):
        own = settings.guidance_scale if prompt.guidance is None else prompt.guidance
        scale = own if guidance is None else guidance
        if scale < 1:
            place = f"line {prompt.line}" if prompt.line else f"prompt {number + 1}"
            raise SafegenError(
                f"{place} has guidance {scale:g}, and at least 1 is needed; "
                "correct it, or give one for all with --guidance-scale"
            )
        for sample in range(samples):
            request = ImageRequest(prompt.text, prompt.seed_of(sample, seed))
            name = f"{number:05d}-{sample:02d}.png"
            jobs.append(ImageJob(name, request, scale, sample, prompt.id))
    return jobs


def origin_of(
    identity: PromptSetIdentity | None, seed: int | None, guidance: float | None
) -> dict[str, Any]:
    """Describe the origin of prompts and seeds for the manifest.

    ``overridden`` names the values of the prompt set that ``seed`` or ``guidance`` replaced.
    """
    overridden = []
    if identity is not None and identity.seeds == "file" and seed is not None:
        overridden.append("seed")
    if identity is not None and identity.own_guidance and guidance is not None:
        overridden.append("guidance")
    return {
        "prompts": asdict(identity) if identity else None,
        "base_seed": seed,
        "overridden": overridden,
    }


def png_with_parameters(
    image: np.ndarray, request: ImageRequest, settings: SamplingSettings
) -> bytes:
    """Encode a PNG whose text chunk ``parameters`` has the form of web UIs."""
    height, width = image.shape[:2]
    parameters = (
        f"{request.prompt}\nNegative prompt: {settings.negative_prompt}\n"
        f"Steps: {settings.steps}, Sampler: {settings.sampler}, "
        f"CFG scale: {settings.guidance_scale:g}, Seed: {request.seed}, Size: {width}x{height}"
    )
    text = PngInfo()
    text.add_itxt("parameters", parameters)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def earlier_pictures(folder: Path, names: Collection[str]) -> list[Path]:
    """List the pictures of an earlier run that the folder's manifest names.

    Raises:
        SafegenError: the manifest is not safegen's, or lacks a picture that would be replaced.
    """
    another = "give --out another folder, or move it away"
    if folder.exists() and not folder.is_dir():
        raise SafegenError(f"{folder}: is a file; give --out a folder")
    manifest, listed = folder / MANIFEST, set()
    if manifest.exists():
        entries: Any = read_object(manifest, another).get("images")
        try:
            listed = {_plain(entry["file"]) for entry in entries}
        except (TypeError, KeyError, ValueError) as error:
            raise SafegenError(f"{manifest}: is no manifest of pictures; {another}") from error
    for name in sorted(names):
        if name not in listed and os.path.lexists(folder / name):
            raise SafegenError(f"{folder / name}: is there, and no manifest lists it; {another}")
    return [folder / name for name in sorted(listed) if os.path.lexists(folder / name)]


def _plain(name: str) -> str:
    """Return a picture's name; raise ValueError for any other name, which may leave the folder."""
    if _PICTURE.fullmatch(name) is None:
        raise ValueError(name)
    return name


def generate_files(
    pipeline: Any,
    jobs: Sequence[ImageJob],
    settings: SamplingSettings,
    folder: Path,
    model: str,
    patch: Path | None,
    batch: int,
    origin: Mapping[str, Any],
    defense: Defense | None = None,
    stale: Sequence[Path] = (),
) -> Iterator[Path]:
    """Write every picture, with ``manifest.json`` before the first and after the last.

    Yields the pictures' paths, grouped by guidance scale and so not in the order of the jobs. The
    patch and, over it, the defense are applied to the pipeline and stay applied. Files in
    ``stale`` are removed after the first picture has been drawn.
    """
    from safegen.models.anatomy import denoiser_of, fingerprint
    from safegen.patches.patch import Patch, apply

    base = fingerprint(denoiser_of(pipeline))
    if patch is not None:
        apply(pipeline, Patch.load(patch))
    if defense is not None:
        defense.apply(pipeline)
    blocked: dict[str, bool] = {}
    manifest = {
        "model": model,
        "fingerprint": base,
        "patch": str(patch) if patch else None,
        "defense": asdict(defense.identity) if defense else None,
        "settings": asdict(settings),
        **origin,
        "version": __version__,
    }
    for job, picture, flag in _pictures(pipeline, jobs, settings, batch):
        if not blocked:
            _write_manifest(folder, manifest, jobs, blocked)
            for path in stale:
                path.unlink(missing_ok=True)
        write_atomically(folder / job.name, picture)
        blocked[job.name] = flag
        yield folder / job.name
    _write_manifest(folder, manifest, jobs, blocked)


def _write_manifest(
    folder: Path, about: dict[str, Any], jobs: Sequence[ImageJob], blocked: Mapping[str, bool]
) -> None:
    """Write the manifest; ``complete`` is false until all pictures are drawn."""
    images = [_entry(job, blocked.get(job.name)) for job in jobs]
    content = {**about, "complete": len(blocked) == len(jobs), "images": images}
    write_atomically(folder / MANIFEST, json.dumps(content, indent=2) + "\n")


def _pictures(
    pipeline: Any, jobs: Sequence[ImageJob], settings: SamplingSettings, batch: int
) -> Iterator[tuple[ImageJob, bytes, bool]]:
    """Yield each job with its PNG and whether a filter blocked it, by guidance scale."""
    from safegen.models.sampling import generate_samples

    for guidance in dict.fromkeys(job.guidance for job in jobs):
        group = [job for job in jobs if job.guidance == guidance]
        how = dataclasses.replace(settings, guidance_scale=guidance)
        samples = generate_samples(pipeline, [job.request for job in group], how, batch)
        for job, sample in zip(group, samples, strict=True):
            yield job, png_with_parameters(sample.image, sample.request, how), sample.blocked


def _entry(job: ImageJob, blocked: bool | None) -> dict[str, Any]:
    """Build a picture's entry in the manifest."""
    return {
        "file": job.name,
        "id": job.prompt_id,
        "sample": job.sample,
        **asdict(job.request),
        "guidance": job.guidance,
        "blocked": blocked,
    }
