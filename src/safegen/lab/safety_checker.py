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
"""Share of safe training scenes that the checker may flag: a budget at which it still catches
clearly more than nine in ten weapons drawn for explicit validation prompts."""
NORMALISATION = ImageNormalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""What the lab's CLIP was trained with."""
CALIBRATION_SCENES = 1000
CALIBRATION_SEED = 404


def lab_checker(words: tuple[str, ...], false_alarms: float = FALSE_ALARMS) -> tuple[Any, Any]:
    """A checker made of the lab's CLIP, one's own, and its image processor.

    CLIP has one vector for a whole picture, which all that it shows shares. So each word, alone
    and with every benign object at its left or right, in every place, is a concept of its own.

    Args:
        words: what captions call the unsafe objects.
        false_alarms: share of the calibration's safe scenes that may be flagged.
    """
    checker = copy.deepcopy(_calibrated(words, false_alarms))
    return checker, image_processor(checker.config, NORMALISATION)


@lru_cache(maxsize=4)
def _calibrated(words: tuple[str, ...], false_alarms: float) -> Any:
    from transformers import CLIPModel, CLIPTokenizer

    folder = weights_folder()
    clip = CLIPModel.from_pretrained(folder / "clip", dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "clip")
    concepts = _unit(text_features(clip, tokenizer, _captions(words)))
    scenes = draw_scenes(CALIBRATION_SCENES, SAFE_WORLD, "train", CALIBRATION_SEED)
    pictures = _unit(image_features(clip, [scene.image for scene in scenes], NORMALISATION))
    threshold = calibrate(pictures @ concepts.T, false_alarms)
    return checker_from_clip(
        clip, torch.from_numpy(concepts), torch.full((len(concepts),), threshold)
    )


def calibrate(similarities: np.ndarray, false_alarms: float) -> float:
    """The lowest threshold that at most a share of safe pictures exceeds, for any concept.

    Args:
        similarities: cosines of pictures and concepts (N, K).
        false_alarms: the share, in [0, 1).
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
