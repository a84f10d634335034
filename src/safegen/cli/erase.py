"""``safegen erase``: make the patch of a weight-editing baseline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli.loading import Model, takes_load_options
from safegen.models.options import LoadOptions

if TYPE_CHECKING:
    from safegen.concepts import Concept
    from safegen.patches.patch import Patch

METHODS = ("esd-x", "esd-u", "uce")


@takes_load_options
def erase(
    model: Model,
    method: Annotated[
        str, typer.Option(help="esd-x (cross-attention), esd-u (all but it), or uce.")
    ],
    out: Annotated[Path, typer.Option(help="The patch to write (.safetensors).")],
    concept_text: Annotated[
        str | None,
        typer.Option(help="What to erase, e.g. 'knife, pistol'; each part is erased by itself."),
    ] = None,
    concept: Annotated[
        str | None, typer.Option(help="Name of what is erased, kept in the patch.")
    ] = None,
    preserve: Annotated[
        list[str] | None, typer.Option(help="A text that uce holds as it is; may be repeated.")
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Of ESD's training.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of ESD's training.")] = None,
    negative_guidance: Annotated[
        float | None, typer.Option(help="How far from the concept ESD's target lies.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Of the sampler in ESD's training.")] = None,
    batch: Annotated[int | None, typer.Option(help="Latents an iteration of ESD.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random draw of ESD.")] = None,
    *,
    loading: LoadOptions,
) -> None:
    """Erase a concept by its text, with ESD or UCE, the baselines that safegen is compared to.

    Settings that are not given are the published ones; for the lab's ESD, scaled to its size.
    Put the patch on with --defense esd:PATCH or uce:PATCH.
    """
    from safegen.errors import SafegenError
    from safegen.models.loading import load_pipeline
    from safegen.profiles import concept_for

    training = {
        "iterations": iterations,
        "learning_rate": learning_rate,
        "negative_guidance": negative_guidance,
        "steps": steps,
        "batch": batch,
        "seed": seed,
    }
    chosen = {name: value for name, value in training.items() if value is not None}
    _check(method, chosen, preserve)
    erased = concept_for(model, concept_text, concept)
    if erased is None:
        raise SafegenError("say what to erase: --concept-text 'knife, pistol'")
    pipeline = load_pipeline(model, **vars(loading))
    if method == "uce":
        patch = _uce(pipeline, erased, preserve or [], model)
    else:
        patch = _esd(pipeline, erased, method, chosen, model)
    patch.save(out)
    typer.echo(f"wrote {out}; {len(patch.differences)} weights changed")


def _check(method: str, training: dict[str, Any], preserve: list[str] | None) -> None:
    from safegen.errors import SafegenError

    if method not in METHODS:
        raise SafegenError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    if method == "uce" and training:
        raise SafegenError(f"uce solves without training; leave out {', '.join(training)}")
    if method != "uce" and preserve:
        raise SafegenError(f"{method} preserves no texts; --preserve goes with --method uce")


def _uce(pipeline: Any, concept: Concept, preserve: list[str], model: str) -> Patch:
    from safegen.defenses.uce import erase as solve
    from safegen.lab.world.objects import BENIGN_NAMES, OBJECTS

    known = [OBJECTS[name].text for name in BENIGN_NAMES] if model == "lab" else []
    return solve(pipeline, concept, preserve or known)


def _esd(pipeline: Any, concept: Concept, method: str, chosen: dict[str, Any], model: str) -> Patch:
    from dataclasses import replace

    from rich.progress import track

    from safegen.defenses.esd import EsdSettings, EsdTraining, Variant
    from safegen.lab.concept import LAB_WEAPONS
    from safegen.lab.prompts import erasure_prompts

    variant: Variant = "x" if method == "esd-x" else "u"
    settings = EsdSettings.lab(variant) if model == "lab" else EsdSettings(variant)
    own = model == "lab" and concept.words == LAB_WEAPONS.words
    prompts = erasure_prompts() if own else []
    training = EsdTraining(pipeline, concept, replace(settings, **chosen), prompts)
    total = training.settings.iterations
    for _ in track(training.run(), total=total, description=f"erasing with {method}"):
        pass
    return training.patch()
