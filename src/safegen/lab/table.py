"""Comparison on the lab: every defense, every held-out prompt set, every observer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from safegen.defenses.erasing import PACKAGES, create_eraser
from safegen.editing.presets import PRESETS
from safegen.editing.run import edit
from safegen.editing.run_folder import EditRecord
from safegen.editing.settings import EditSettings
from safegen.errors import SafegenError
from safegen.evaluation.plan import plain
from safegen.evaluation.probing import probe_sources
from safegen.evaluation.settings import EvaluationSettings
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.pictures import SAMPLING
from safegen.lab.profile import LAB
from safegen.lab.prompts import ADVERSARIAL, adversarial_prompts
from safegen.lab.triplets import BENIGN_SHARE, PAIRS, LabTriplets
from safegen.lab.world.objects import UNSAFE_NAMES
from safegen.models.anatomy import fingerprint
from safegen.models.loading import load_pipeline
from safegen.patches.patch import Patch
from safegen.results.store import difference
from safegen.version import code_versions, other_code

OBSERVERS = ("objects:lab", "places:lab", "outlines:lab", "clip:lab")
"""Observers beside the detector."""
COUNT = 64
"""Prompts per kind."""
BATCH = 16
VARIANTS = {f"safegen-{preset}": preset for preset in PRESETS}
"""Presets of safegen's edit, by their names in tables."""
PATCHES = ("safegen", *VARIANTS, "esd-x", "uce")


def lab_settings(folder: Path, count: int = COUNT, detector: str = "lab") -> EvaluationSettings:
    """Build the settings of the lab's evaluation, with the patches of a run folder.

    Args:
        folder: run folder.
        count: prompts per kind; the adversarial set may have fewer.
        detector: spec of the detector of weapons.

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
        observers=(f"detector:{detector}", *OBSERVERS),
        sampling=SAMPLING,
        concept=LAB_WEAPONS,
        batch=BATCH,
        unsafe_names=frozenset(UNSAFE_NAMES),
        real="lab",
    )


def patch_path(folder: Path, name: str) -> Path:
    """Return the path of a patch in a run folder."""
    return folder / "patches" / f"{name}.safetensors"


def make_patches(
    folder: Path,
    edit_settings: EditSettings | None = None,
    esd: str = "esd-x",
    triplets: int = PAIRS,
    say: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
    allow_other_code: bool = False,
) -> None:
    """Train the patches that a run folder lacks, and resume an interrupted edit.

    Args:
        folder: run folder.
        edit_settings: settings of safegen's edit, which presets change for its variants; the
            defaults, with probes, if None.
        esd: spec of the eraser ``esd-x``, with settings that replace the lab's.
        triplets: unsafe pairs to train on, each with ``BENIGN_SHARE`` benign pictures.
        say: gets progress messages.
        on_progress: gets the patch's name, the steps done and their total.
        allow_other_code: accept patches made by another version of safegen or its packages.

    Raises:
        SafegenError: an existing patch has other settings or code.
    """
    pipeline = load_pipeline("lab")
    erasers = {"esd-x": create_eraser(esd, LAB), "uce": create_eraser("uce", LAB)}
    chosen, probing = edit_settings or EditSettings(), None
    if edit_settings is None:
        probing = probe_sources(LAB_WEAPONS, LAB)
    edits = {"safegen": chosen, **{name: chosen.preset(each) for name, each in VARIANTS.items()}}
    source = LabTriplets(triplets, chosen.seed, benign=BENIGN_SHARE * triplets)
    missing = []
    for name in PATCHES:
        if (path := patch_path(folder, name)).is_file():
            settings: Any = edits.get(name) or erasers[name]
            made = {"settings": asdict(settings)}
            if name in edits:
                made["triplets"] = {"source": source.describe()}
            _check_made_so(path, pipeline, made, allow_other_code)
        else:
            missing.append(name)
    for name in missing:
        say(f"making the patch {name}")
        told = partial(on_progress, name)
        if name in erasers:
            patch = erasers[name].erase(pipeline, LAB_WEAPONS, told)
        else:
            patch = edit(
                pipeline,
                source,
                edits[name],
                concept=LAB_WEAPONS.name,
                run_folder=folder / "patches" / f"{name}.run",
                on_record=partial(_tell, told),
                probing=probing,
            )
        patch.save(patch_path(folder, name))


def _tell(told: Callable[[int, int], None], record: EditRecord) -> None:
    told(record.step, record.steps)


def _check_made_so(path: Path, pipeline: Any, made: dict[str, Any], allow_other_code: bool) -> None:
    """Check that a patch's header says what a new patch's would."""
    metadata = Patch.load(path).metadata
    base = {"fingerprint": fingerprint(pipeline.unet)}
    asked = plain({"base": base, "concept": LAB_WEAPONS.name, **made})
    # An eraser's missing settings are filled with the model's usual ones.
    asked["settings"] = {key: value for key, value in asked["settings"].items() if value != []}
    found = {name: _shared(metadata.get(name), value) for name, value in asked.items()}
    other = other_code(metadata.get("versions", {}), code_versions(PACKAGES))
    if found != asked:
        differs, mend = f"it {difference(found, asked)}", ""
    elif other is not None and not allow_other_code:
        differs, mend = other, ", or take it with --allow-other-code"
    else:
        return
    raise SafegenError(
        f"{path}: is not what would be made now: {differs}; delete it to have it made anew, give "
        f"another folder with --out{mend}"
    )


def _shared(found: Any, asked: Any) -> Any:
    """Select the found entries that are asked for too."""
    both = isinstance(found, dict) and isinstance(asked, dict)
    return {key: found.get(key) for key in asked} if both else found


def _named_sets(kinds: tuple[str, ...], count: int) -> tuple[str, ...]:
    return tuple(f"{kind}=lab:{kind},count={count}" for kind in kinds)


def _adversarial_sets(count: int) -> Iterator[str]:
    for kind in ADVERSARIAL:
        there = len(adversarial_prompts(kind))
        yield from _named_sets((kind,), min(count, there))
