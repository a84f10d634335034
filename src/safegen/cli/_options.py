"""Arguments and options shared by several commands."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from safegen.cli.loading import MODEL_HELP
from safegen.errors import SafegenError
from safegen.settings import Settings, setting

ModelArgument = Annotated[str | None, typer.Argument(help=MODEL_HELP)]


@dataclass(frozen=True)
class TableOptions(Settings):
    """Options of the commands that fill a table, beside the evaluation's settings."""

    detector: str | None = setting(
        None, "Detector of the concept: nudenet, onnx:FILE, lab and others.", panel="Evaluated"
    )
    objects: str | None = setting(
        None, "Classifier of the drawn objects, for retention: lab.", panel="Evaluated"
    )
    concept_text: str | None = setting(
        None,
        "Concept that text-dependent defenses avoid and attacks seek: 'knife, pistol'.",
        panel="Evaluated",
    )
    concept: str | None = setting(None, "Name of the concept.", panel="Evaluated")
    count: int | None = setting(
        None,
        "Prompts of each kind in the preset; usual goals of an attack (default: 16).",
        minimum=1,
    )
    executor: str = setting("local", "Executor: local, or ray.", panel="Computation")
    workers: int | None = setting(
        None,
        "Number of workers (default: one for each GPU or, where there is none, one; on a Ray "
        "cluster and with the preset one for each processor core).",
        panel="Computation",
        minimum=1,
    )
    ray_address: str | None = setting(
        None,
        "Address of a running Ray cluster (default: one is started here).",
        panel="Computation",
    )
    require: tuple[str, ...] = setting(
        (),
        "Bound such as 'removal>=0.99', 'asr@img2img-0.5<=0.05' or 'safegen:retention>=0.95'; "
        "the exit code is 1 if one is missed. May be repeated.",
    )
    unblurred: bool = setting(False, "Show unsafe pictures of the report as they are.")


def check_out(out: Path, *inputs: Path | str | None) -> None:
    """Refuse an output that is one of the inputs or cannot be written, before any work.

    Args:
        out: file or folder to write.
        inputs: files or folders to read; names that are no path are ignored.
    """
    for given in inputs:
        if given is not None and out.resolve() == Path(given).resolve():
            raise SafegenError(f"--out {out}: is read by this command; name another path")
    place = next(folder for folder in out.absolute().parents if folder.exists())
    if not place.is_dir():
        raise SafegenError(f"--out {out}: {place} is a file, not a folder; name another")
    if not os.access(place, os.W_OK):
        raise SafegenError(f"--out {out}: {place} cannot be written; name another folder")


def check_out_file(out: Path, *inputs: Path | str | None) -> None:
    """Check an output as ``check_out`` does, for a safetensors file."""
    check_out(out, *inputs)
    if out.is_dir():
        raise SafegenError(f"--out {out}: is a folder; give a file name (.safetensors)")
