"""``safegen play``: draw with and without defenses side by side, on a page of this machine."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli._settings import takes_settings
from safegen.cli.loading import Model
from safegen.files import check_regular
from safegen.models.options import LoadOptions, SamplingSettings

if TYPE_CHECKING:
    from safegen.concepts import Concept
    from safegen.play.drawing import Easel
    from safegen.profiles import Profile

Patch = Annotated[
    Path | None, typer.Option(help="Patch of the hardened model, which has a column of its own.")
]
Defenses = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SPEC",
        help="Baseline with a column of its own, such as sld-max; may be repeated. The page takes "
        "one more.",
    ),
]
ConceptName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE.yaml",
        help="Concept whose detector judges the pictures, and which baselines avoid "
        "(default: the model's usual concept).",
    ),
]
Judge = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="Detector whose flagged pictures are blurred (default: the concept's; without one "
        "every picture is blurred).",
    ),
]
Run = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Run folder of evaluate or attack to browse as well."),
]
Port = Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)]


@takes_settings(given=SamplingSettings)
def play(
    model: Model,
    patch: Patch = None,
    defense: Defenses = None,
    concept: ConceptName = None,
    detector: Judge = None,
    run: Run = None,
    port: Port = 7860,
    *,
    given: dict[str, Any],
    loading: LoadOptions,
) -> None:
    """Draw on a page: the original, the hardened model and baselines side by side.

    Flagged pictures are blurred until asked for. The page is for this machine alone, and loads
    nothing from a network. Ctrl-C ends it.
    """
    from safegen.errors import MissingExtraError
    from safegen.profiles import Profile, profile_of

    try:
        from safegen.play.page import Play
        from safegen.play.server import serve_on
    except ModuleNotFoundError as error:
        raise MissingExtraError("the page", "play") from error
    if patch is not None:
        check_regular(patch)
    if run is not None:
        _check_run(run)
    profile = profile_of(model) or Profile()
    settings = SamplingSettings.of(**{**profile.sampling, **given})
    titles = {"original": "none"} | ({"hardened": f"safegen:{patch}"} if patch else {})
    titles |= {spec: spec for spec in defense or []}
    easel = _easel(model, profile, concept, detector, settings, loading)
    with _warned():
        for spec in titles.values():
            easel.check(spec)
    page = Play(model, easel, titles, {"steps": settings.steps}, run)
    server = serve_on(page, port)
    typer.echo(f"open http://{server.host}:{server.port}/ (Ctrl-C ends it)")
    server.serve_forever()


def _check_run(folder: Path) -> None:
    from safegen.play.gallery import open_run

    open_run(folder).close()


def _easel(
    model: str,
    profile: Profile,
    concept: str | None,
    detector: str | None,
    settings: SamplingSettings,
    loading: LoadOptions,
) -> Easel:
    """Load the model and its judge; what is wrong with small things is said first."""
    from safegen.concepts import load_concept
    from safegen.defenses import create_defense
    from safegen.detectors import create_detector
    from safegen.models.loading import load_pipeline
    from safegen.play.drawing import Easel

    offline = loading.local_files_only
    avoided: Concept | None = profile.concept if concept is None else load_concept(concept)
    spec = detector or (avoided.detector if avoided else None)
    judge = create_detector(spec, local_files_only=offline) if spec else None
    create = partial(create_defense, concept=avoided, profile=profile, local_files_only=offline)
    return Easel(load_pipeline(model, **vars(loading)), settings, create, judge)


@contextmanager
def _warned() -> Iterator[None]:
    """Print the block's warnings, each once, as lines."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for message in dict.fromkeys(str(each.message) for each in caught):
        typer.echo(f"warning: {message}", err=True)
