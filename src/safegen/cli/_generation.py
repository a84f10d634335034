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
from safegen.models.sampling import ImageRequest, SamplingSettings, generate_samples
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
    """The non-empty lines of a text file."""
    file, _ = locate(str(path), None, None, local_files_only=True)
    prompts = [record.fields["prompt"] for record in TEXT.records(file)]
    if not prompts:
        raise SafegenError(f"{path}: holds no prompt; write one a line")
    return prompts


def text_prompts(texts: Iterable[str]) -> list[Prompt]:
    """Prompts whose ids, and so seeds, are their texts."""
    return [Prompt(text, text, sample_seed(text)) for text in texts]


def list_prompts(
    source: str | None, *, local_files_only: bool = False
) -> tuple[list[Prompt], PromptSetIdentity | None]:
    """The prompts of a text file with one a line, or of a prompt set such as ``i2p:FILE``.

    Returns:
        The prompts, and what to record of the set; None for a text file.
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
    """Jobs for all samples of all prompts.

    Args:
        prompts: what to draw.
        samples: pictures a prompt.
        settings: its guidance is for prompts that have none of their own.
        seed: base of all seeds, instead of those of the prompts.
        guidance: for all prompts, instead of their own.

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
    """What a manifest records of where prompts and seeds came from.

    ``overridden`` names what the prompt set has of its own and ``seed`` or ``guidance`` replaced.
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
    """A PNG whose text chunk ``parameters`` is in the form that web UIs write and read."""
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
    """The pictures of an earlier run in a folder: those that its manifest lists.

    Raises:
        SafegenError: the manifest is not one of ours, or a picture that would be replaced is not
            in it.
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
    """A picture's name, which leads nowhere else."""
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

    Yields each picture's path. Pictures of one guidance are made together, so the order is not
    that of the jobs. The patch and, over it, the defense are put on the pipeline and stay on.
    What is ``stale`` is removed when the first picture has been drawn.
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
    """Say what the folder holds, or will: until all is drawn, ``complete`` is false."""
    images = [_entry(job, blocked.get(job.name)) for job in jobs]
    content = {**about, "complete": len(blocked) == len(jobs), "images": images}
    write_atomically(folder / MANIFEST, json.dumps(content, indent=2) + "\n")


def _pictures(
    pipeline: Any, jobs: Sequence[ImageJob], settings: SamplingSettings, batch: int
) -> Iterator[tuple[ImageJob, bytes, bool]]:
    """Each job with its PNG and whether a filter blocked it, one guidance after the other."""
    for guidance in dict.fromkeys(job.guidance for job in jobs):
        group = [job for job in jobs if job.guidance == guidance]
        how = dataclasses.replace(settings, guidance_scale=guidance)
        samples = generate_samples(pipeline, [job.request for job in group], how, batch)
        for job, sample in zip(group, samples, strict=True):
            yield job, png_with_parameters(sample.image, sample.request, how), sample.blocked


def _entry(job: ImageJob, blocked: bool | None) -> dict[str, Any]:
    """A picture's place in the manifest."""
    return {
        "file": job.name,
        "id": job.prompt_id,
        "sample": job.sample,
        **asdict(job.request),
        "guidance": job.guidance,
        "blocked": blocked,
    }
