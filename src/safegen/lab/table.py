"""The whole comparison on the lab: every defense, every held-out prompt set, every observer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from safegen.defenses.erasing import create_eraser
from safegen.editing.run import edit
from safegen.editing.settings import PRESETS, EditSettings
from safegen.errors import SafegenError
from safegen.evaluation.settings import EvaluationSettings
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.pictures import SAMPLING
from safegen.lab.profile import LAB
from safegen.lab.prompts import ADVERSARIAL, adversarial_prompts
from safegen.lab.triplets import BENIGN_SHARE, PAIRS, LabTriplets
from safegen.lab.world.objects import UNSAFE_NAMES
from safegen.models.loading import load_pipeline
from safegen.patches.patch import Patch
from safegen.registry import name_of

COUNT = 64
"""Prompts of each kind."""
BATCH = 16
VARIANTS = {f"safegen-{preset}": preset for preset in PRESETS}
"""Safegen's edit by each preset of its settings, as the tables name them."""
PATCHES = ("safegen", *VARIANTS, "esd-x", "uce")


def lab_settings(folder: Path, count: int = COUNT, detector: str = "lab") -> EvaluationSettings:
    """The lab's evaluation, with the patches of a run folder.

    Args:
        folder: of the run.
        count: prompts of each kind; of the adversarial set all where there are fewer.
        detector: spec of what finds the weapons.

    Raises:
        SafegenError: the folder's name cannot stand in a defense's spec, or the adversarial set
            is missing.
    """
    if "+" in str(folder):
        raise SafegenError(f"{folder}: a + joins defenses; give a folder without one with --out")
    paths = {name: patch_path(folder, name) for name in PATCHES}
    return EvaluationSettings(
        model="lab",
        defenses=(
            "filtered",
            "safety-filter",
            "sld-weak",
            "sld-medium",
            "sld-strong",
            "sld-max",
            f"esd:{paths['esd-x']}",
            f"uce:{paths['uce']}",
            "negative-prompt",
            f"safegen:{paths['safegen']}",
            *(f"{name}=safegen:{paths[name]}" for name in VARIANTS),
            f"safegen:{paths['safegen']}+sld-max",
        ),
        unsafe=(*_named_sets(("explicit", "implicit"), count), *_adversarial_sets(count)),
        benign=_named_sets(("benign",), count),
        near_miss=_named_sets(("near-miss",), count),
        observers=(f"detector:{detector}", "objects:lab", "clip:lab"),
        sampling=SAMPLING,
        concept=LAB_WEAPONS,
        batch=BATCH,
        unsafe_names=frozenset(UNSAFE_NAMES),
        real="lab",
    )


def patch_path(folder: Path, name: str) -> Path:
    """Where a run folder has a patch."""
    return folder / "patches" / f"{name}.safetensors"


def make_patches(
    folder: Path,
    edit_settings: EditSettings | None = None,
    esd: str = "esd-x",
    triplets: int = PAIRS,
    say: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> None:
    """Train the patches that a run folder does not have yet; an interrupted edit goes on.

    Args:
        folder: of the run.
        edit_settings: of safegen's edit, and but for what presets change of its variants; the
            lab's if None.
        esd: spec of the eraser ``esd-x``, with settings that are not the lab's.
        triplets: unsafe pairs that the edit learns from, with ``BENIGN_SHARE`` benign
            pictures to each.
        say: told what is made.
        on_progress: told the patch's name, and the steps done and in all.
    """
    missing = [name for name in PATCHES if not patch_path(folder, name).is_file()]
    if not missing:
        return
    pipeline = load_pipeline("lab")

    def safegen(name: str, preset: str | None = None) -> Patch:
        settings = (edit_settings or EditSettings.lab()).preset(preset)
        return edit(
            pipeline,
            LabTriplets(triplets, settings.seed, benign=BENIGN_SHARE * triplets),
            settings,
            concept=LAB_WEAPONS.name,
            run_folder=folder / "patches" / f"{name}.run",
            on_record=lambda record: on_progress(name, record.step, record.steps),
        )

    def erased(spec: str) -> Patch:
        eraser = create_eraser(spec, LAB)
        return eraser.erase(pipeline, LAB_WEAPONS, partial(on_progress, name_of(spec)))

    makers: dict[str, Callable[[], Patch]] = {
        "safegen": partial(safegen, "safegen"),
        **{name: partial(safegen, name, preset) for name, preset in VARIANTS.items()},
        "esd-x": partial(erased, esd),
        "uce": partial(erased, "uce"),
    }
    for name in missing:
        say(f"making the patch {name}")
        makers[name]().save(patch_path(folder, name))


def _named_sets(kinds: tuple[str, ...], count: int) -> tuple[str, ...]:
    return tuple(f"{kind}=lab:{kind},count={count}" for kind in kinds)


def _adversarial_sets(count: int) -> Iterator[str]:
    for kind in ADVERSARIAL:
        there = len(adversarial_prompts(kind))
        yield from _named_sets((kind,), min(count, there))
