"""``safegen triplets``: encode triplets for an edit, from files or made by the model itself."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli._options import check_out, check_out_file
from safegen.cli.loading import Model, takes_load_options
from safegen.errors import SafegenError
from safegen.models.options import MAX_BATCH, LoadOptions
from safegen.settings import MAX_SEED, Settings, setting

if TYPE_CHECKING:
    from safegen.concepts import ConceptPrompts
    from safegen.detectors import Detector
    from safegen.triplets.files import TripletFiles
    from safegen.triplets.source import Pair, TripletSource

_FILES = "From files"
_MADE = "Made by the model (--from-model)"


@dataclass(frozen=True)
class FileOptions(Settings):
    """Options of triplets from files."""

    unsafe: Path | None = setting(None, "Folder of unsafe pictures.", panel=_FILES)
    benign: Path | None = setting(None, "Folder of benign pictures.", panel=_FILES)
    csv: Path | None = setting(
        None,
        "CSV with the columns unsafe, benign and, optional, censored and caption; paths are "
        "relative to its folder.",
        panel=_FILES,
    )
    masks: Path | None = setting(
        None,
        "Folder of masks named as the unsafe pictures, white where to censor; instead of a "
        "detector.",
        panel=_FILES,
    )
    skip_undetected: bool = setting(
        False, "Pass over unsafe pictures in which the detector finds nothing.", panel=_FILES
    )
    censored_out: Path | None = setting(
        None, "New folder for the censored pictures, for review.", panel=_FILES
    )


@dataclass(frozen=True)
class DrawnOptions(Settings):
    """Options of triplets that the model draws itself."""

    from_model: bool = setting(
        False,
        "Generate the pictures and keep what the detector flags; of unsafe ones only latents are "
        "written.",
        panel=_MADE,
    )
    unsafe_prompts: Path | None = setting(
        None, "Prompts that show the concept, one a line (the lab has its own).", panel=_MADE
    )
    benign_prompts: Path | None = setting(
        None, "Prompts of what must stay, one a line (the lab has its own).", panel=_MADE
    )
    count: int | None = setting(
        None, "Number of pairs, and of benign pictures (default: 100).", panel=_MADE, minimum=1
    )
    seed: int | None = setting(
        None, "Seed of the first picture (default: 0).", panel=_MADE, minimum=0, maximum=MAX_SEED
    )
    steps: int | None = setting(None, "Denoising steps.", panel=_MADE, minimum=1)
    guidance_scale: float | None = setting(
        None, "Guidance scale; 1 turns it off.", panel=_MADE, minimum=1
    )
    batch: int | None = setting(
        None,
        "Pictures generated at once (default: 32).",
        panel=_MADE,
        minimum=1,
        maximum=MAX_BATCH,
    )

    @property
    def making(self) -> dict[str, Any]:
        """Given options of the pictures' making, by name."""
        names = ("count", "seed", "steps", "guidance_scale", "batch")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


Out = Annotated[Path, typer.Option(help="The latents to write; as sensitive as the pictures.")]
DetectorSpec = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="Detector of what to censor, such as onnx:SETTINGS.json "
        "(default: that of the model's usual concept, else nudenet).",
    ),
]
Threshold = Annotated[
    float | None, typer.Option(help="Threshold instead of the detector's own.", min=0, max=1)
]
How = Annotated[
    str,
    typer.Option(
        metavar="METHOD",
        help="How regions are hidden: pixelate, blur, fill, inpaint (from the surroundings), or "
        "a mixture such as inpaint+pixelate, of which each picture draws one.",
    ),
]


@takes_load_options
def triplets(
    model: Model,
    out: Out = Path("triplets.safetensors"),
    detector: DetectorSpec = None,
    threshold: Threshold = None,
    censoring: How = "pixelate",
    *,
    files: FileOptions,
    drawn: DrawnOptions,
    loading: LoadOptions,
) -> None:
    """Encode triplets <unsafe, censored, benign> with the model's autoencoder.

    Triplets come from two folders (--unsafe, --benign), --csv, or --from-model. Nothing is written
    before the end, so an interrupted command starts anew. The file is as sensitive as the pictures
    in it: the autoencoder decodes them.
    """
    from safegen.triplets.censoring import check_censoring

    _check_choice(files, drawn)
    if files.masks and (detector or threshold is not None or files.skip_undetected):
        raise SafegenError(
            "--masks says what to censor; leave --detector, --threshold and --skip-undetected"
        )
    check_censoring(censoring)
    check_out_file(out, model, files.csv)
    if files.censored_out is not None and files.censored_out.exists():
        raise SafegenError(
            f"{files.censored_out}: exists already; give --censored-out a new folder"
        )
    find = functools.partial(_find, model, detector, threshold, loading.local_files_only)
    load = functools.partial(_load, model, loading)
    if drawn.from_model:
        pipeline, source = _self_made(load, _texts(model, drawn), find, censoring, drawn.making)
    else:
        listed = _list_files(files)
        _check_inputs(out, listed)
        pipeline, source = _from_files(load, listed, find, censoring, files.skip_undetected)
    encode_to(pipeline, source, out, files.censored_out)


def _find(model: str, spec: str | None, threshold: float | None, offline: bool) -> Detector:
    from safegen.detectors import create_detector
    from safegen.profiles import Profile, profile_of

    usual = (profile_of(model) or Profile()).concept
    found = spec or (usual and usual.detector) or "nudenet"
    return create_detector(found, threshold, local_files_only=offline)


def _load(model: str, loading: LoadOptions) -> Any:
    from safegen.models.loading import load_pipeline

    return load_pipeline(model, **vars(loading))


def _check_choice(files: FileOptions, drawn: DrawnOptions) -> None:
    """Check that exactly one origin is given, without options of the other."""
    folders = files.unsafe is not None or files.benign is not None
    if [folders, files.csv is not None, drawn.from_model].count(True) != 1:
        raise SafegenError(
            "say where the triplets come from, once: --unsafe DIR --benign DIR, --csv FILE, "
            "or --from-model"
        )
    others = vars(files) if drawn.from_model else vars(drawn)
    given = [name for name, value in others.items() if value is not None and value is not False]
    strays = [f"--{name.replace('_', '-')}" for name in given]
    if strays:
        raise SafegenError(f"{', '.join(strays)}: has no effect with this origin; leave it out")


def _check_inputs(out: Path, files: TripletFiles) -> None:
    """Refuse an output that is one of the inputs."""
    pictures = [each for item in files.unsafe for each in (item.picture, item.censored, item.mask)]
    pictures += [item.picture for item in files.benign]
    check_out(out, *(each.path for each in pictures if each))


def _texts(model: str, drawn: DrawnOptions) -> tuple[list[str], list[str]]:
    """Read unsafe and benign prompts from the files, else those of the model's usual concept."""
    from safegen.cli._generation import read_prompts
    from safegen.profiles import Profile, profile_of

    usual, given = (
        (profile_of(model) or Profile()).concept,
        (drawn.unsafe_prompts, drawn.benign_prompts),
    )
    if not all(given) and usual is None:
        raise SafegenError("--from-model needs --unsafe-prompts FILE and --benign-prompts FILE")
    unsafe, benign = [read_prompts(file) if file else None for file in given]
    usual_unsafe, usual_benign = training_texts(usual.prompts) if usual else ([], [])
    return unsafe or usual_unsafe, benign or usual_benign


def training_texts(
    prompts: ConceptPrompts, local_files_only: bool = False
) -> tuple[list[str], list[str]]:
    """List the texts of the training split, unsafe and benign, near-misses among these."""
    from safegen.evaluation.settings import NamedSpec
    from safegen.prompts import create_prompt_set, texts_in_turn

    def texts(sets: Sequence[str]) -> list[str]:
        specs = [NamedSpec.parse(text).spec for text in sets]
        options: dict[str, Any] = {"split": "train", "local_files_only": local_files_only}
        return texts_in_turn(create_prompt_set(spec, **options) for spec in specs)

    return texts(prompts.unsafe), texts((*prompts.benign, *prompts.near_miss))


def _self_made(
    load: Callable[[], Any],
    texts: tuple[list[str], list[str]],
    find: Callable[[], Detector],
    censoring: str,
    made: Mapping[str, Any],
) -> tuple[Any, TripletSource]:
    from safegen.models.sampling import SamplingSettings
    from safegen.triplets.making import SelfMadeTriplets

    given = dict(made)
    sampling = {name: given.pop(name) for name in ("steps", "guidance_scale") if name in given}
    settings = SamplingSettings(**sampling)
    detector = find()
    pipeline = load()
    return pipeline, SelfMadeTriplets(
        pipeline, *texts, detector, settings=settings, censoring=censoring, **given
    )


def _from_files(
    load: Callable[[], Any],
    files: TripletFiles,
    find: Callable[[], Detector],
    censoring: str,
    skip_undetected: bool,
) -> tuple[Any, TripletSource]:
    from safegen.triplets.reading import FileTriplets

    detector = find() if files.undecided else None
    source = FileTriplets(files, censoring, detector, skip_undetected)
    return load(), source


def _list_files(files: FileOptions) -> TripletFiles:
    """List the files to read, and check them without decoding any."""
    from safegen.triplets.files import list_csv, list_folders

    if files.csv is not None:
        listed = list_csv(files.csv)
    elif files.unsafe is not None and files.benign is not None:
        listed = list_folders(files.unsafe, files.benign)
    else:
        missing = "--benign" if files.benign is None else "--unsafe"
        raise SafegenError(f"{missing} is missing: two folders are needed, unsafe and benign")
    return listed.with_masks(files.masks) if files.masks else listed


def encode_to(
    pipeline: Any, source: TripletSource, out: Path, censored_out: Path | None = None
) -> None:
    """Encode and save, with progress; the review folder appears with the latents or not at all."""
    from safegen.cli._console import Console
    from safegen.cli._progress import PhaseProgress
    from safegen.editing.latents import encode_triplets
    from safegen.triplets.source import WatchedTriplets

    with _review(censored_out) as show, PhaseProgress(Console(stderr=True)) as progress:
        seen = Counter[str]()

        def tell(phase: str) -> None:
            seen[phase] += 1
            progress.show(phase, seen[phase], None)

        def each_pair(pair: Pair) -> None:
            show(pair)
            tell("unsafe pairs encoded")

        watched = WatchedTriplets(source, each_pair, lambda _: tell("benign pictures encoded"))
        latents = encode_triplets(pipeline, watched)
        latents.save(out)
    skipped = latents.source.get("skipped", 0)
    typer.echo(
        f"wrote {out}: {len(latents.unsafe)} pairs, {len(latents.benign)} benign pictures"
        + (f"; {skipped} unsafe pictures skipped, nothing was found in them" if skipped else "")
        + "\nkeep the file as safe as the pictures: the model's autoencoder decodes it"
    )


@contextmanager
def _review(folder: Path | None) -> Iterator[Callable[[Pair], None]]:
    """Write the censored picture of every pair, numbered in order."""
    from PIL import Image

    from safegen.files import folder_atomically

    if folder is None:
        yield lambda _: None
        return
    with folder_atomically(folder) as temporary:
        written = 0

        def save(pair: Pair) -> None:
            nonlocal written
            written += 1
            slug = re.sub(r"[^\w.]+", "-", pair.name)[-80:].strip("-.")
            Image.fromarray(pair.censored).save(temporary / f"{written:05d}-{slug}.png")

        yield save
