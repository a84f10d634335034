"""RECE against its paper's equations, computed projection by projection with NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from safegen.concepts import Concept
from safegen.defenses import uce
from safegen.defenses.rece import ReceSettings, erase
from safegen.errors import SafegenError
from safegen.models.anatomy import fingerprint

KNIFE = Concept("knife", "knife")
SETTINGS = ReceSettings(preserve_scale=0.2, regularisation=0.3, rounds=2, closeness=0.05)


def edited(
    weight: np.ndarray, c: np.ndarray, g: np.ndarray, kept: np.ndarray, settings: ReceSettings
) -> np.ndarray:
    """UCE's equation 7 for one projection, with sums over outer products."""
    left = settings.regularisation * weight
    right = settings.regularisation * np.eye(weight.shape[1])
    for erased, guide in zip(c, g, strict=True):
        left = left + np.outer(weight @ guide, erased)
        right = right + np.outer(erased, erased)
    for each in kept:
        left = left + settings.preserve_scale * np.outer(weight @ each, each)
        right = right + settings.preserve_scale * np.outer(each, each)
    found: np.ndarray = left @ np.linalg.inv(right)
    return found


def nearest(old: list[np.ndarray], new: list[np.ndarray], c: np.ndarray, lam: float) -> np.ndarray:
    """Least squares over all projections: W' c' = W c, and sqrt(lambda) c' = 0."""
    rows = np.concatenate([*new, np.sqrt(lam) * np.eye(c.shape[1])])
    goal = np.concatenate([*(weight @ c.T for weight in old), np.zeros((c.shape[1], len(c)))])
    found: np.ndarray = np.linalg.lstsq(rows, goal, rcond=None)[0].T
    return found


def test_each_round_erases_what_still_leads_to_the_concept(tiny_pipeline: Any) -> None:
    before = fingerprint(tiny_pipeline.unet)
    told: list[tuple[int, int]] = []
    patch = erase(
        tiny_pipeline, KNIFE, ["a cat"], SETTINGS, lambda done, of: told.append((done, of))
    )
    assert fingerprint(tiny_pipeline.unet) == before
    assert told == [(1, 3), (2, 3), (3, 3)]
    c, g, kept = (
        each.double().numpy()
        for each in uce.token_embeddings(tiny_pipeline, KNIFE, ["a cat"], SETTINGS)
    )
    parameters = tiny_pipeline.unet.state_dict()
    old = [parameters[name].double().numpy() for name in patch.differences]
    new = [edited(weight, c, g, kept, SETTINGS) for weight in old]
    for _ in range(SETTINGS.rounds):
        again = nearest(old, new, c, SETTINGS.closeness)
        new = [edited(weight, again, g, kept, SETTINGS) for weight in new]
    for difference, first, last in zip(patch.differences.values(), old, new, strict=True):
        np.testing.assert_allclose(difference.numpy(), last - first, rtol=1e-3, atol=1e-6)


def test_without_rounds_it_is_uce(tiny_pipeline: Any) -> None:
    none = ReceSettings(rounds=0)
    plain = uce.UceSettings(regularisation=none.regularisation)
    ours, theirs = erase(tiny_pipeline, KNIFE, [], none), uce.erase(tiny_pipeline, KNIFE, [], plain)
    more = erase(tiny_pipeline, KNIFE, [], ReceSettings())
    for name, difference in theirs.differences.items():
        np.testing.assert_allclose(ours.differences[name], difference, atol=1e-6)
        assert not np.allclose(more.differences[name], difference, atol=1e-4)


def test_its_settings_are_checked() -> None:
    for wrong, message in (
        ({"rounds": -1}, "RECE: rounds must be a whole number of at least 0"),
        ({"closeness": 0.0}, "closeness must be a finite number above 0"),
        ({"regularisation": 0.0}, "regularisation must be a finite number above 0"),
    ):
        with pytest.raises(SafegenError, match=message):
            ReceSettings(**wrong)  # type: ignore[arg-type]
