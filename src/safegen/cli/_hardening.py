"""Stages of ``safegen harden``: triplets, edit, measurement, report, hardened pipeline.

Each stage leaves its files in the run folder, so the same command resumes an interrupted run.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from safegen.cli import _runs as runs
from safegen.cli._console import Console
from safegen.cli._order import PATCH, STARTED, Order, source_of
from safegen.evaluation.settings import EvaluationSettings
from safegen.files import write_atomically
from safegen.report.standing import SAFEGEN

if TYPE_CHECKING:
    from safegen.results.records import Table
    from safegen.triplets.source import TripletSource

EDIT, PIPELINE, CARD, SUMMARY = "edit", "pipeline", "README.md", "summary.json"
GRID, GRID_ITEMS = "grid.png", 2
"""Picture grid, and its items per prompt set."""
TRIED = 2
"""Denoising steps of the trial."""


def harden(order: Order, console: Console) -> bool:
    """Do all stages that the run folder lacks; returns whether all targets are reached."""
    write_atomically(order.out / STARTED, json.dumps(order.described(), indent=2) + "\n")
    if not (order.out / PATCH).is_file():
        make_patch(order, console)
    settings = order.evaluation
    if settings is None:
        _save_pipeline(order, console)
        console.print(
            "not measured: there are no prompts that ask for the concept, so nobody knows how much "
            "was removed; give --unsafe-prompts and --benign-prompts, or measure with "
            f"'safegen evaluate --defense safegen:{order.out / PATCH}'"
        )
        return False
    table = measure(order, settings, console)
    _save_pipeline(order, console)
    return _verdict(order, table, console)


def make_patch(order: Order, console: Console) -> None:
    """Encode the triplets, and train the edit; both resume."""
    from safegen.cli._progress import EditProgress
    from safegen.cli.edit import load_for
    from safegen.cli.triplets import encode_to
    from safegen.editing.latents import TripletLatents
    from safegen.editing.run import edit

    pipeline = load_for(order.model, order.edit, order.loading)
    latents = order.latents
    if not latents.is_file():
        encode_to(pipeline, source_of(order, pipeline), latents)
    with EditProgress(console) as progress:
        patch = edit(
            pipeline,
            TripletLatents.load(latents),
            order.edit,
            concept=order.concept.name,
            run_folder=order.out / EDIT,
            on_record=progress.show_step,
            keep_pipeline=False,
            probing=order.probing,
            targets=order.probed_targets,
        )
    patch.save(order.out / PATCH)


def announce(order: Order, console: Console) -> None:
    """Say what the run will take: pictures, memory and time, measured in a few trial steps."""
    from safegen.report.wording import duration

    console.print(f"hardening {order.model} against {order.concept.name}, in {order.out}")
    targets = (
        ", ".join(map(str, order.requirements)) if order.evaluation else "none can be measured"
    )
    console.print(f"targets: {targets}")
    pictures = _pictures(order)
    for stage, (text, _) in pictures.items():
        console.print(f"{stage}: {text}")
    if (order.out / PATCH).is_file():
        console.print(f"edit: {order.out / PATCH} is there already")
        return
    seconds, memory, each = _trial(order)
    drawn = sum(count for _, count in pictures.values()) * each
    console.print(
        f"edit: at most {order.edit.optimisation.steps} steps, about {duration(seconds)}; "
        f"memory {memory}"
    )
    console.print(
        f"in all: at most about {duration(seconds + drawn)}, at the pace of a short trial"
    )


def _pictures(order: Order) -> dict[str, tuple[str, int]]:
    """Describe the pictures of each stage, and count those that the model has to draw."""
    from safegen.evaluation.plan import items_of, planned_prompt_sets
    from safegen.triplets.making import SelfMadeTriplets

    found: dict[str, tuple[str, int]] = {}
    if order.latents.is_file():
        found["triplets"] = (f"{order.latents}, encoded already", 0)
    else:
        source = source_of(order, None)
        made = isinstance(source, SelfMadeTriplets)
        pairs, benign = _sizes(source)
        origin = "drawn by the model" if made else "not drawn by the model"
        count = pairs + benign if made else 0
        found["triplets"] = (f"{pairs} pairs and {benign} benign pictures, {origin}", count)
    if not (order.out / PATCH).is_file() and (probing := order.probing) is not None:
        optimisation = order.edit.optimisation
        times = 1 + math.ceil(optimisation.steps / optimisation.cycle)
        about = f"at most {times} of at most {probing.size} pictures, the first of the original"
        found["probes"] = (about, probing.size * times)
    if (settings := order.evaluation) is not None:
        sets = planned_prompt_sets(settings)
        prompts = sum(len(list(items_of(each.prompts, settings))) for each in sets)
        total = prompts * len(settings.defense_specs)
        names = ", ".join(each.record.name for each in sets)
        found["measurement"] = (f"{total} pictures of both models on {names}", total)
    return found


def _sizes(source: TripletSource) -> tuple[int, int]:
    from safegen.triplets.reading import FileTriplets

    if isinstance(source, FileTriplets):
        return len(source.files.unsafe), len(source.files.benign)
    about = source.describe()
    return about["count"], about.get("benign", about["count"])


def _trial(order: Order) -> tuple[float, str, float]:
    """Try a few steps and a picture: seconds of the edit, its memory, seconds a picture."""
    import torch

    from safegen.cli.edit import load_for
    from safegen.editing.latents import TripletLatents
    from safegen.editing.run import plan
    from safegen.models.anatomy import fingerprint
    from safegen.models.families import family_of
    from safegen.models.options import SamplingSettings
    from safegen.models.sampling import ImageRequest, generate

    pipeline = load_for(order.model, order.edit, order.loading)
    if order.latents.is_file():
        latents = TripletLatents.load(order.latents)
    else:
        shape = (4, *family_of(pipeline).latent_shape(pipeline))
        generator = torch.Generator().manual_seed(0)
        unsafe, censored, benign = torch.randn(3, *shape, generator=generator)
        captions = ("a picture",) * len(benign)
        latents = TripletLatents(unsafe, censored, benign, captions, fingerprint(pipeline.vae))
    tried = plan(pipeline, latents, order.edit)
    sampling = SamplingSettings(**order.usual.sampling)
    for _ in range(2):  # the first includes set-up
        began = time.monotonic()
        list(generate(pipeline, [ImageRequest("", 0)], replace(sampling, steps=TRIED)))
    each = (time.monotonic() - began) * sampling.steps / TRIED
    memory = tried.measured.total if tried.measured else tried.peak_bytes
    return tried.seconds, f"{memory / 2**20:,.0f} MiB" if memory else "not measured", each


def measure(order: Order, settings: EvaluationSettings, console: Console) -> Table:
    """Measure the original and the hardened model, and write tables, report and card."""
    from safegen.cli import _showing as showing
    from safegen.editing.run_folder import read_probes, read_records
    from safegen.evaluation.executors import ExecutorOptions
    from safegen.report.export_card import export_card
    from safegen.report.grid import write_grid
    from safegen.report.targets import outcomes

    workers = order.workers or (runs.cores() if order.usual.small else None)
    table = runs.run(settings, order.out, "local", ExecutorOptions(workers), console)
    showing.write(
        table,
        settings,
        order.out,
        console,
        outcomes=outcomes(order.requirements, table, SAFEGEN),
        losses=read_records(order.out / EDIT),
        probes=read_probes(order.out / EDIT),
    )
    write_grid(order.out / GRID, showing.gallery_of(order.out, settings, GRID_ITEMS))
    card = export_card(order.model, order.out / PATCH, order.out / SUMMARY, whole=False)
    write_atomically(order.out / CARD, str(card))
    return table


def _save_pipeline(order: Order, console: Console) -> None:
    """Write the hardened pipeline with its card, unless it is there."""
    from safegen.cli.apply import hardened
    from safegen.patches.folder import save_pipeline
    from safegen.patches.patch import Patch
    from safegen.report.export_card import export_card

    place, patch, summary = (order.out / name for name in (PIPELINE, PATCH, SUMMARY))
    if not place.exists():
        card = export_card(order.model, patch, summary) if order.evaluation else None
        pipeline = hardened(order.model, Patch.load(patch), order.loading)
        save_pipeline(pipeline, place, card=card)
    console.print(f"hardened pipeline: {place}; patch: {patch}")


def _verdict(order: Order, table: Table, console: Console) -> bool:
    """Say which targets are reached; returns whether all are."""
    from safegen.report.targets import outcomes

    requirements = order.requirements
    found = outcomes(requirements, table, SAFEGEN)
    without = [each for each in requirements if all(each != one.target for one in found)]
    for line in (*found, *(f"missed: {each}: the table has no such figure" for each in without)):
        console.print(str(line))
    missed = len(without) + sum(not each.reached for each in found)
    console.print(
        f"verdict: {missed} of {len(found) + len(without)} targets missed"
        if missed
        else "verdict: all targets reached on the held-out prompts"
    )
    return not missed
