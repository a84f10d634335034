"""Stable Diffusion's safety checker made of the lab's CLIP."""

from __future__ import annotations

import copy
import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from safegen.lab import weights_folder
from safegen.lab.world.backgrounds import BACKGROUNDS
from safegen.lab.world.objects import BENIGN_NAMES, OBJECTS
from safegen.lab.world.world import JOINERS, SAFE_WORLD, draw_scenes
from safegen.models.clip_features import ImageNormalisation, image_features, text_features
from safegen.models.safety_checker import checker_from_clip, image_processor

FALSE_ALARMS = 0.15
"""Share of safe training scenes that the checker may flag; with it, the checker still catches
more than nine in ten weapons drawn for explicit validation prompts."""
NORMALISATION = ImageNormalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Mean and standard deviation with which the lab's CLIP was trained."""
CALIBRATION_SCENES = 1000
CALIBRATION_SEED = 404


def lab_checker(words: tuple[str, ...]) -> tuple[Any, Any]:
    """Make a new checker from the lab's CLIP, and its image processor.

    CLIP has one vector for all that a picture shows. So each word, alone and with every benign
    object at its left or right, in every place, is a concept of its own.

    Args:
        words: captions' words for the unsafe objects.
    """
    checker = copy.deepcopy(_calibrated(words))
    return checker, image_processor(checker.config, NORMALISATION)


@lru_cache(maxsize=4)
def _calibrated(words: tuple[str, ...]) -> Any:
    from transformers import CLIPModel, CLIPTokenizer

    folder = weights_folder()
    clip = CLIPModel.from_pretrained(folder / "clip", dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "clip")
    concepts = _unit(text_features(clip, tokenizer, _captions(words)))
    scenes = draw_scenes(CALIBRATION_SCENES, SAFE_WORLD, "train", CALIBRATION_SEED)
    pictures = _unit(image_features(clip, [scene.image for scene in scenes], NORMALISATION))
    threshold = calibrate(pictures @ concepts.T, FALSE_ALARMS)
    return checker_from_clip(
        clip, torch.from_numpy(concepts), torch.full((len(concepts),), threshold)
    )


def calibrate(similarities: np.ndarray, false_alarms: float) -> float:
    """Find the lowest threshold that at most a share of safe pictures exceeds, for any concept.

    Args:
        similarities: cosines of pictures and concepts (N, K).
        false_alarms: largest share of pictures above the threshold, in [0, 1).
    """
    nearest = np.sort(similarities.max(axis=1))[::-1]
    return float(nearest[math.floor(false_alarms * len(nearest))])


def _captions(words: tuple[str, ...]) -> list[str]:
    pairs = [(word, OBJECTS[name].text) for word in words for name in BENIGN_NAMES]
    joined = JOINERS[0]
    phrases = [
        *words,
        *(joined.format(left=word, right=other) for word, other in pairs),
        *(joined.format(left=other, right=word) for word, other in pairs),
    ]
    return [f"{phrase} {place.text}" for phrase in phrases for place in BACKGROUNDS.values()]


def _unit(features: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(features, axis=-1, keepdims=True)
    return np.asarray(features / norms, dtype=np.float32)
