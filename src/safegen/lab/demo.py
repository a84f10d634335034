"""The main job on the lab, end to end: edit, generate side by side, measure, report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from safegen.detectors import Detector, create_detector
from safegen.editing.latents import encode_triplets
from safegen.editing.run import edit
from safegen.editing.run_folder import EditRecord, read_records
from safegen.editing.settings import EditSettings
from safegen.errors import SafegenError
from safegen.lab.classifier import classifier_identity, object_scores
from safegen.lab.pictures import SAMPLING, draw_prompts
from safegen.lab.prompts import lab_prompts
from safegen.lab.triplets import BENIGN_SHARE, PAIRS, LabTriplets
from safegen.lab.world.objects import UNSAFE_NAMES
from safegen.lab.world.world import KINDS, Kind, Mixture, Split, draw_scene
from safegen.models.clip_features import image_features, text_features
from safegen.models.loading import load_pipeline
from safegen.observers.clip import load_clip
from safegen.patches.patch import apply
from safegen.prompts import Prompt
from safegen.report.records import (
    BenignFeatures,
    Comparison,
    Picture,
    PromptSetKind,
    PromptSetResult,
    RunFacts,
)

Prompts = dict[Kind, list[Prompt]]
Pictures = dict[Kind, list[np.ndarray]]
CONCEPT = "weapons"
REAL_SEED = 4_242
DESCRIPTIONS: dict[Kind, str] = {
    "explicit": "prompts that name the weapon",
    "implicit": "prompts that mean the weapon by an innocuous phrase",
    "benign": "prompts with everyday objects",
    "near-miss": "benign prompts whose objects look like weapons",
}


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of a demo.

    Attributes:
        prompts: of each kind.
        triplets: unsafe pairs; there are ``BENIGN_SHARE`` times as many benign pictures.
        real: held-out scenes that the Fréchet distance compares with.
        split: of the prompts; anything reported comes from ``held-out``.
        seed: of the triplets and the edit.
    """

    prompts: int = 64
    triplets: int = PAIRS
    real: int = 1000
    split: Split = "held-out"
    seed: int = 0


@dataclass(frozen=True)
class DemoResult:
    """What a demo measured, for its report."""

    facts: RunFacts
    prompt_sets: tuple[PromptSetResult, ...]
    features: BenignFeatures


def run_demo(
    folder: Path,
    demo: DemoSettings,
    settings: EditSettings,
    say: Callable[[str], None],
    on_record: Callable[[EditRecord], None],
) -> DemoResult:
    """Harden the lab model and measure it against the original; leaves ``patch.safetensors``.

    An edit that was interrupted goes on from its checkpoint in ``folder / "edit"``.
    """
    began = time.monotonic()
    pipeline = load_pipeline("lab")
    detector = create_detector("lab")
    say(f"encoding {demo.triplets} triplets of drawn scenes")
    source = LabTriplets(demo.triplets, demo.seed, benign=BENIGN_SHARE * demo.triplets)
    latents = encode_triplets(pipeline, source)
    patch = edit(
        pipeline,
        latents,
        settings.changed(seed=demo.seed),
        concept=CONCEPT,
        run_folder=folder / "edit",
        on_record=on_record,
    )
    patch.save(folder / "patch.safetensors")
    records = read_records(folder / "edit")
    prompts = {kind: lab_prompts(kind, demo.split, demo.prompts) for kind in KINDS}
    say(f"drawing {len(KINDS) * demo.prompts} prompts with the original model")
    original = draw(pipeline, prompts)
    apply(pipeline, patch)
    say(f"drawing {len(KINDS) * demo.prompts} prompts with the hardened model")
    hardened = draw(pipeline, prompts)
    prompt_sets = compare(prompts, original, hardened, detector)
    features = measure_features(prompts["benign"], original["benign"], hardened["benign"], demo)
    facts = RunFacts(
        model="lab",
        patch="patch.safetensors",
        concept=CONCEPT,
        detector=detector.identity,
        edit_seconds=records[-1].seconds,
        total_seconds=time.monotonic() - began,
        settings={
            "edit": patch.metadata["settings"],
            "sampling": asdict(SAMPLING),
            "demo": asdict(demo),
        },
        versions=patch.metadata["versions"] | {"onnxruntime": version("onnxruntime")},
        seeds={"triplets and edit": demo.seed, "real scenes": REAL_SEED},
        losses=records,
        classifier=classifier_identity(),
    )
    return DemoResult(facts, prompt_sets, features)


def start_folder(folder: Path) -> None:
    """Prepare the run folder: an interrupted run goes on, a finished one is begun anew."""
    if folder.exists() and not folder.is_dir():
        raise SafegenError(f"{folder}: is a file; name a folder")
    if (folder / "summary.json").exists():
        shutil.rmtree(folder / "edit", ignore_errors=True)
        (folder / "summary.json").unlink()
    folder.mkdir(parents=True, exist_ok=True)


def draw(pipeline: Any, prompts: Prompts) -> Pictures:
    """One picture a prompt, from the prompt's own seed."""
    return {kind: draw_prompts(pipeline, of_kind) for kind, of_kind in prompts.items()}


def compare(
    prompts: Prompts, original: Pictures, hardened: Pictures, detector: Detector
) -> tuple[PromptSetResult, ...]:
    """What the detector and the classifier find in both models' pictures."""
    return tuple(
        _prompt_set(
            kind,
            of_kind,
            _recognise(original[kind], detector),
            _recognise(hardened[kind], detector),
        )
        for kind, of_kind in prompts.items()
    )


def _recognise(images: list[np.ndarray], detector: Detector) -> list[Picture]:
    found = detector.detect(images)
    return [
        Picture(image, bool(detections), tuple(detections), scores)
        for image, detections, scores in zip(images, found, object_scores(images), strict=True)
    ]


def _prompt_set(
    kind: Kind, prompts: list[Prompt], original: list[Picture], hardened: list[Picture]
) -> PromptSetResult:
    role: PromptSetKind = "unsafe" if kind in ("explicit", "implicit") else "benign"
    comparisons = [
        Comparison(
            prompt_id=prompt.id,
            prompt=prompt.text,
            seed=prompt.seed,
            asked=prompt.asked,
            original=before,
            hardened=after,
            unsafe_asked=tuple(name for name in prompt.asked if name in UNSAFE_NAMES),
        )
        for prompt, before, after in zip(prompts, original, hardened, strict=True)
    ]
    return PromptSetResult(kind, role, tuple(comparisons), DESCRIPTIONS[kind])


def measure_features(
    prompts: list[Prompt],
    original: list[np.ndarray],
    hardened: list[np.ndarray],
    demo: DemoSettings,
) -> BenignFeatures:
    """CLIP features of the benign prompts, of both models' pictures, and of real scenes."""
    clip = load_clip("lab")
    model, normalisation = clip.model, clip.normalisation
    world = Mixture(explicit=0.0, implicit=0.0, benign=1.0, near_miss=0.0)  # as the prompts
    real = [draw_scene(world, demo.split, REAL_SEED, i).image for i in range(demo.real)]
    return BenignFeatures(
        text=text_features(model, clip.tokenizer, [prompt.text for prompt in prompts]),
        original=image_features(model, original, normalisation),
        hardened=image_features(model, hardened, normalisation),
        real=image_features(model, real, normalisation),
        encoder="lab CLIP",
    )
