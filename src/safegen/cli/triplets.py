"""``safegen triplets``: encode triplets for an edit, from files or made by the model itself."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli._options import check_out, check_out_file
from safegen.cli.loading import Model, takes_load_options
from safegen.errors import SafegenError
from safegen.models.options import LoadOptions

if TYPE_CHECKING:
    from safegen.concepts import ConceptPrompts
    from safegen.detectors import Detector
    from safegen.triplets.files import TripletFiles
    from safegen.triplets.source import Benign, Pair, TripletSource

_FILES = "From files"
_MADE = "Made by the model (--from-model)"


Out = Annotated[Path, typer.Option(help="The latents to write; as sensitive as the pictures.")]
Unsafe = Annotated[
    Path | None, typer.Option(help="Folder of unsafe pictures.", rich_help_panel=_FILES)
]
BenignFolder = Annotated[
    Path | None, typer.Option(help="Folder of benign pictures.", rich_help_panel=_FILES)
]
Csv = Annotated[
    Path | None,
    typer.Option(
        help="CSV with the columns unsafe, benign and, optional, censored and caption; "
        "paths are relative to its folder.",
        rich_help_panel=_FILES,
    ),
]
Masks = Annotated[
    Path | None,
    typer.Option(
        help="Folder of masks named as the unsafe pictures, white where to censor; "
        "instead of a detector.",
        rich_help_panel=_FILES,
    ),
]
SkipUndetected = Annotated[
    bool,
    typer.Option(
        "--skip-undetected",
        help="Pass over unsafe pictures in which the detector finds nothing.",
        rich_help_panel=_FILES,
    ),
]
CensoredOut = Annotated[
    Path | None,
    typer.Option(help="New folder for the censored pictures, for review.", rich_help_panel=_FILES),
]
FromModel = Annotated[
    bool,
    typer.Option(
        "--from-model",
        help="Generate the pictures and keep what the detector flags; "
        "of unsafe ones only latents are written.",
        rich_help_panel=_MADE,
    ),
]
UnsafePrompts = Annotated[
    Path | None,
    typer.Option(
        help="Prompts that show the concept, one a line (the lab has its own).",
        rich_help_panel=_MADE,
    ),
]
BenignPrompts = Annotated[
    Path | None,
    typer.Option(
        help="Prompts of what must stay, one a line (the lab has its own).", rich_help_panel=_MADE
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        help="Number of pairs, and of benign pictures (default: 100).", min=1, rich_help_panel=_MADE
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        help="Seed of the first picture (default: 0).", min=0, max=2**63, rich_help_panel=_MADE
    ),
]
Steps = Annotated[int | None, typer.Option(help="Denoising steps.", min=1, rich_help_panel=_MADE)]
GuidanceScale = Annotated[
    float | None, typer.Option(help="Guidance scale; 1 turns it off.", rich_help_panel=_MADE)
]
Batch = Annotated[
    int | None,
    typer.Option(help="Pictures generated at once (default: 32).", min=1, rich_help_panel=_MADE),
]
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
    unsafe: Unsafe = None,
    benign: BenignFolder = None,
    csv: Csv = None,
    masks: Masks = None,
    skip_undetected: SkipUndetected = False,
    censored_out: CensoredOut = None,
    from_model: FromModel = False,
    unsafe_prompts: UnsafePrompts = None,
    benign_prompts: BenignPrompts = None,
    count: Count = None,
    seed: Seed = None,
    steps: Steps = None,
    guidance_scale: GuidanceScale = None,
    batch: Batch = None,
    detector: DetectorSpec = None,
    threshold: Threshold = None,
    censoring: How = "pixelate",
    *,
    loading: LoadOptions,
) -> None:
    """Encode triplets <unsafe, censored, benign> with the model's autoencoder.

    Triplets come from two folders (--unsafe, --benign), --csv, or --from-model. Nothing is written
    before the end, so an interrupted command starts anew. The file is as sensitive as the pictures
    in it: the autoencoder decodes them.
    """
    from safegen.triplets.censoring import check_censoring

    made = {"count": count, "seed": seed, "steps": steps, "guidance_scale": guidance_scale}
    made["batch"] = batch
    of_files = {
        "masks": masks,
        "skip-undetected": skip_undetected or None,
        "censored-out": censored_out,
    }
    of_model = {"unsafe-prompts": unsafe_prompts, "benign-prompts": benign_prompts, **made}
    _check_choice(unsafe, benign, csv, from_model)
    _refuse_strays(of_files if from_model else of_model)
    if masks and (detector or threshold is not None or skip_undetected):
        raise SafegenError(
            "--masks says what to censor; leave --detector, --threshold and --skip-undetected"
        )
    check_censoring(censoring)
    check_out_file(out, model, csv)
    _check_targets(censored_out)
    find = functools.partial(_find, model, detector, threshold, loading.local_files_only)
    load = functools.partial(_load, model, loading)
    if from_model:
        texts = _texts(model, unsafe_prompts, benign_prompts)
        pipeline, source = _self_made(load, texts, find, censoring, made)
    else:
        files = _list_files(unsafe, benign, csv, masks)
        _check_inputs(out, files)
        pipeline, source = _from_files(load, files, find, censoring, skip_undetected)
    encode_to(pipeline, source, out, censored_out)


def _find(model: str, spec: str | None, threshold: float | None, offline: bool) -> Detector:
    from safegen.detectors import create_detector
    from safegen.profiles import Profile, profile_of

    usual = (profile_of(model) or Profile()).concept
    found = spec or (usual and usual.detector) or "nudenet"
    return create_detector(found, threshold, local_files_only=offline)


def _load(model: str, loading: LoadOptions) -> Any:
    from safegen.models.loading import load_pipeline

    return load_pipeline(model, **vars(loading))


def _check_choice(
    unsafe: Path | None, benign: Path | None, csv: Path | None, from_model: bool
) -> None:
    """Check that exactly one origin is given."""
    folders = unsafe is not None or benign is not None
    if [folders, csv is not None, from_model].count(True) != 1:
        raise SafegenError(
            "say where the triplets come from, once: --unsafe DIR --benign DIR, --csv FILE, "
            "or --from-model"
        )


def _refuse_strays(options: Mapping[str, object]) -> None:
    """Refuse options of the other origin, which would have no effect."""
    strays = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if strays:
        raise SafegenError(f"{', '.join(strays)}: has no effect with this origin; leave it out")


def _check_targets(censored_out: Path | None) -> None:
    """Refuse, before hours of work, to replace an existing folder."""
    if censored_out is not None and censored_out.exists():
        raise SafegenError(f"{censored_out}: exists already; give --censored-out a new folder")


def _check_inputs(out: Path, files: TripletFiles) -> None:
    """Refuse an output that is one of the inputs."""
    pictures = [each for item in files.unsafe for each in (item.picture, item.censored, item.mask)]
    pictures += [item.picture for item in files.benign]
    check_out(out, *(each.path for each in pictures if each))


def _texts(
    model: str, unsafe_prompts: Path | None, benign_prompts: Path | None
) -> tuple[list[str], list[str]]:
    """Read unsafe and benign prompts from the files, else those of the model's usual concept."""
    from safegen.cli._generation import read_prompts
    from safegen.profiles import Profile, profile_of

    given = [read_prompts(file) if file else None for file in (unsafe_prompts, benign_prompts)]
    usual = (profile_of(model) or Profile()).concept
    if not all(given) and usual is None:
        raise SafegenError("--from-model needs --unsafe-prompts FILE and --benign-prompts FILE")
    unsafe, benign = training_texts(usual.prompts) if usual else ([], [])
    return given[0] or unsafe, given[1] or benign


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

    given = {name: value for name, value in made.items() if value is not None}
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


def _list_files(
    unsafe: Path | None, benign: Path | None, csv: Path | None, masks: Path | None
) -> TripletFiles:
    """List the files to read, and check them without decoding any."""
    from safegen.triplets.files import list_csv, list_folders

    if csv is not None:
        files = list_csv(csv)
    elif unsafe is not None and benign is not None:
        files = list_folders(unsafe, benign)
    else:
        missing = "--benign" if benign is None else "--unsafe"
        raise SafegenError(f"{missing} is missing: two folders are needed, unsafe and benign")
    return files.with_masks(masks) if masks else files


def encode_to(
    pipeline: Any, source: TripletSource, out: Path, censored_out: Path | None = None
) -> None:
    """Encode and save, with progress; the review folder appears with the latents or not at all."""
    from safegen.editing.latents import encode_triplets
    from safegen.triplets.source import WatchedTriplets

    with _review(censored_out) as show, _progress() as (on_pair, on_benign):

        def each_pair(pair: Pair) -> None:
            show(pair)
            on_pair(pair)

        latents = encode_triplets(pipeline, WatchedTriplets(source, each_pair, on_benign))
        latents.save(out)
    skipped = latents.source.get("skipped", 0)
    typer.echo(
        f"wrote {out}: {len(latents.unsafe)} pairs, {len(latents.benign)} benign pictures"
        + (f"; {skipped} unsafe pictures skipped, nothing was found in them" if skipped else "")
        + "\nkeep the file as safe as the pictures: the model's autoencoder decodes it"
    )


@contextmanager
def _progress() -> Iterator[tuple[Callable[[Pair], None], Callable[[Benign], None]]]:
    """Show one counter per stream on the terminal until done."""
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from safegen.cli._console import Console

    columns = TextColumn("{task.description}"), TextColumn("{task.completed}"), TimeElapsedColumn()
    console = Console(stderr=True)
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        pairs = progress.add_task("unsafe pairs encoded", total=None)
        benign = progress.add_task("benign pictures encoded", total=None)
        yield lambda _: progress.advance(pairs), lambda _: progress.advance(benign)


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
