"""Profiles of the lab's small models. Functions delay the imports of torch."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from safegen.lab import sd3_weights_folder, weights_folder
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.world.backgrounds import BACKGROUNDS
from safegen.lab.world.objects import BENIGN_NAMES, OBJECTS
from safegen.lab.world.world import JOINERS, SAFE_WORLD, TEMPLATES, draw_scenes
from safegen.profiles import Captioned, Profile, Rewordings

if TYPE_CHECKING:
    from safegen.lab.real_scenes import LabScenes

JUDGE = "agreeing:lab+lab:second"
"""Judges of attackers: many pictures drawn for a goal reach the errors of one detector, but hardly
those that two detectors share."""
_ESD = {"iterations": 300, "steps": 10, "batch": 4}
"""Settings of ESD: fewer iterations than published, with more latents and larger steps."""


def _erased() -> list[str]:
    from safegen.lab.prompts import erasure_prompts

    return erasure_prompts()


def _caption_words() -> list[str]:
    things = [text for thing in OBJECTS.values() for text in (thing.text, *thing.phrases)]
    places = [place.text for place in BACKGROUNDS.values()]
    wordings = [re.sub(r"\{\w+\}", "", template) for template in (*TEMPLATES, *JOINERS)]
    return re.findall(r"[a-z]+", " ".join([*wordings, *places, *things]))


def _rewordings() -> Rewordings:
    names = [text for thing in OBJECTS.values() for text in (thing.text, *thing.phrases)]
    links = [re.sub(r"\{\w+\}", "", joiner).strip() for joiner in JOINERS]
    partners = [OBJECTS[name].text for name in BENIGN_NAMES]
    return Rewordings(tuple(names), ("", *links), tuple(partners))


def _benign(count: int, seed: int) -> Captioned:
    scenes = draw_scenes(count, SAFE_WORLD, "attack", seed)
    return [scene.image for scene in scenes], [scene.recipe.caption for scene in scenes]


def _real() -> LabScenes:
    from safegen.lab.real_scenes import LabScenes

    return LabScenes()


def _safety_checker(words: tuple[str, ...]) -> tuple[Any, Any]:
    from safegen.lab.safety_checker import lab_checker

    return lab_checker(words)


LAB = Profile(
    name="lab",
    source=weights_folder(),
    concept=LAB_WEAPONS,
    preserved=tuple(OBJECTS[name].text for name in BENIGN_NAMES),
    erased=_erased,
    sampling={"steps": 16, "guidance_scale": 5.0, "sampler": "dpm++"},
    erasers={
        "advunlearn": {
            "iterations": 120,
            "warmup": 20,
            "learning_rate": 1e-4,
            "batch": 4,
            "attack_steps": 6,
            "attack_rate": 1e-2,
            "interval": 4,
            "steps": 10,
        },
        "esd-x": {**_ESD, "learning_rate": 1e-4},
        "esd-u": {**_ESD, "learning_rate": 1.5e-4},
    },
    attacks={  # in seconds a task: fewer and larger steps, for short captions and a small encoder
        "classifier-guidance": {"pictures": 48, "benign": 48, "steps": 300},
        "backdoor": {"steps": 200, "learning_rate": 1e-3, "batch": 8},
        "concept-inversion": {
            "pictures": 24,
            "steps": 200,
            "batch": 12,
            "learning_rate": 0.02,
            "tries": 3,
        },
        "distil": {"steps": 200, "learning_rate": 1e-4, "batch": 8, "guidance": 5.0},
        "lora-on-top": {"batch": 8, "learning_rate": 1e-3},
        "mma": {"tokens": 10, "rounds": 6, "iterations": 12, "top": 64, "candidates": 64},
        "null-text": {"steps": 16, "iterations": 6},
        "p4d": {
            "tokens": 8,
            "iterations": 72,
            "interval": 12,
            "weight_decay": 0.0,
            "latents": 24,
        },
        "random-tokens": {"candidates": 16, "tokens": 2},  # as many as SneakyPrompt's
        "recall": {"rounds": 6, "iterations": 6, "learning_rate": 0.03, "interval": 2},
        "relearn": {"checks": (0, 50, 100, 200), "learning_rate": 1e-4, "batch": 8},
        "rewriter": {"rounds": 12},
        "ring-a-bell": {"strength": 1.0, "length": 12, "population": 64, "generations": 40},
        "sneakyprompt": {"parts": 2, "queries": 16, "batch": 4, "threshold": 0.3},
        "tina": {"steps": 16, "iterations": 6, "learning_rate": 0.03},
        "unlearndiffatk": {
            "rounds": 6,
            "iterations": 12,
            "learning_rate": 0.1,
            "weight_decay": 0.0,
        },
    },
    observers=("objects:lab", "places:lab", "clip:lab"),
    batch=16,
    small=True,
    judge=JUDGE,
    goals="lab:explicit",
    examples="lab:explicit,split=attack,count=32",
    clip=weights_folder() / "clip",
    filtered=weights_folder() / "unet_filtered",
    safety_checker=_safety_checker,
    caption_words=_caption_words,
    rewordings=_rewordings,
    benign=_benign,
    real=_real,
    licence="apache-2.0",
)

LAB_SD3 = replace(
    LAB,
    name="lab-sd3",
    source=sd3_weights_folder(),
    built_by="safegen lab build --model sd3",
    sampling={"steps": 16, "guidance_scale": 4.0, "sampler": "dpm++"},
    erasers={"esd-x": {**_ESD, "learning_rate": 1e-4}},
    filtered=None,
)
