"""The figures of a run as one dictionary, which ``summary.json`` holds.

Figures of the hardened model stand at the top (``retention.benign``), the same of the original
model under ``original``, and the confidence intervals of both under ``intervals``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from safegen.errors import SafegenError
from safegen.files import write_atomically
from safegen.metrics import retention as kept
from safegen.metrics._frechet import frechet_distance
from safegen.metrics.clip_score import cosine_similarities
from safegen.metrics.removal import removal_interval, removal_rate
from safegen.report.records import BenignFeatures, Comparison, Picture, PromptSetResult, RunFacts
from safegen.statistics.intervals import (
    CONFIDENCE,
    Interval,
    bootstrap_interval,
    wilson_interval,
)

SCHEMA_VERSION = 1
CONTEXT = "unsafe_context"
"""Key of the other, benign objects of unsafe prompts."""

Side = Literal["original", "hardened"]


class Estimate(NamedTuple):
    """A figure and its confidence interval, where it has one."""

    value: float
    interval: Interval | None = None


Tree = dict[str, Any]


def build_summary(
    facts: RunFacts, prompt_sets: Sequence[PromptSetResult], features: BenignFeatures | None = None
) -> dict[str, Any]:
    """All figures, with what they were measured by.

    Intervals are Wilson's for shares and the paired bootstrap over prompts for ratios, at 95 %.

    Args:
        facts: what was done.
        prompt_sets: at least one of them unsafe, and no name twice.
        features: of benign prompts and pictures; without them the CLIP score and the Fréchet
            distance are left out.

    Raises:
        SafegenError: no unsafe prompt set, a name twice, an unsafe set on which the original
            draws nothing unsafe, or a figure that is not finite.
    """
    _check_sets(prompt_sets)
    groups = _retention_groups(prompt_sets)
    threshold = facts.object_threshold
    hardened = _one_side(prompt_sets, groups, features, "hardened", threshold)
    hardened |= _hardened_against_original(prompt_sets, groups, features, threshold)
    original = _one_side(prompt_sets, groups, features, "original", threshold)
    summary = {
        "schema_version": SCHEMA_VERSION,
        "model": facts.model,
        "patch": facts.patch,
        "concept": facts.concept,
        **_values(hardened),
        "original": _values(original),
        "edit_seconds": facts.edit_seconds,
        "total_seconds": facts.total_seconds,
        "intervals": {
            "confidence": CONFIDENCE,
            **_intervals(hardened),
            "original": _intervals(original),
        },
        "counts": _counts(prompt_sets, groups, features),
        **_provenance(facts, features),
    }
    return dict(check_finite(summary))


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the summary as JSON."""
    write_atomically(path, json.dumps(summary, indent=2, allow_nan=False) + "\n")


def read_summary(path: Path) -> dict[str, Any]:
    """Read a summary of this or an earlier version.

    Raises:
        SafegenError: the file is missing, no summary, or of a later version.
    """
    try:
        summary = json.loads(path.read_text())
        schema_version = int(summary["schema_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SafegenError(
            f"{path} is no summary ({error}); make it with 'safegen demo'"
        ) from error
    if schema_version > SCHEMA_VERSION:
        raise SafegenError(
            f"{path} has schema version {schema_version}, this safegen reads up to "
            f"{SCHEMA_VERSION}; install a newer safegen"
        )
    return dict(summary)


def check_finite(value: Any, where: str = "summary") -> Any:
    """The value as plain JSON types; a number in it that is not finite is an error that says
    where it stands."""
    if isinstance(value, Mapping):
        return {str(key): check_finite(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [check_finite(item, f"{where}.{index}") for index, item in enumerate(value)]
    if isinstance(value, np.generic):
        return check_finite(value.item(), where)
    if isinstance(value, float) and not math.isfinite(value):
        raise SafegenError(f"{where} is {value}, not a finite number; the run cannot be reported")
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def _check_sets(prompt_sets: Sequence[PromptSetResult]) -> None:
    keys = [prompt_set.key for prompt_set in prompt_sets]
    if len(set(keys)) < len(keys) or CONTEXT in keys:
        raise SafegenError(f"a summary needs prompt sets of different names, not {keys}")
    if all(prompt_set.kind == "benign" for prompt_set in prompt_sets):
        raise SafegenError(f"a summary needs an unsafe prompt set to measure removal; got {keys}")


def _retention_groups(prompt_sets: Iterable[PromptSetResult]) -> dict[str, list[Comparison]]:
    """Comparisons that ask for something benign: a group for each benign set, one for the rest."""
    groups: dict[str, list[Comparison]] = {}
    for prompt_set in sorted(prompt_sets, key=lambda s: s.kind == "unsafe"):
        key = prompt_set.key if prompt_set.kind == "benign" else CONTEXT
        wanting = [comparison for comparison in prompt_set.comparisons if comparison.wanted]
        if wanting:
            groups.setdefault(key, []).extend(wanting)
    return groups


def _one_side(
    prompt_sets: Sequence[PromptSetResult],
    groups: Mapping[str, Sequence[Comparison]],
    features: BenignFeatures | None,
    side: Side,
    threshold: float,
) -> Tree:
    """The figures that one model has by itself."""
    tree: Tree = {
        "unsafe_rate": {s.key: _share(unsafe_flags(s, side)) for s in prompt_sets},
        "retention": {
            key: _share(kept_flags(group, side, threshold)) for key, group in groups.items()
        },
    }
    if features is not None:
        pictures = getattr(features, side)
        cosines = cosine_similarities(pictures, features.text)
        tree["clip_score"] = Estimate(float(cosines.mean()), bootstrap_interval(cosines))
        tree["frechet_distance"] = Estimate(frechet_distance(pictures, features.real))
    return tree


def _hardened_against_original(
    prompt_sets: Sequence[PromptSetResult],
    groups: Mapping[str, Sequence[Comparison]],
    features: BenignFeatures | None,
    threshold: float,
) -> Tree:
    """The figures that compare the two models; a ratio to nothing is left out."""
    tree: Tree = {
        "removal_rate": {s.key: _removal(s) for s in prompt_sets if s.kind == "unsafe"},
        "retention_relative": {},
    }
    for key, group in groups.items():
        before, after = (kept_flags(group, side, threshold) for side in ("original", "hardened"))
        if any(before):
            value = kept.relative_retention(before, after)
            interval = kept.relative_retention_interval(before, after)
            tree["retention_relative"][key] = Estimate(value, interval)
    if features is not None:
        cosines_before = cosine_similarities(features.original, features.text)
        cosines_after = cosine_similarities(features.hardened, features.text)
        if cosines_before.mean() > 0:
            tree["clip_score_relative"] = _relative_mean(cosines_before, cosines_after)
    return tree


def _relative_mean(before: np.ndarray, after: np.ndarray) -> Estimate:
    """Mean of the one by mean of the other, both (N,) over the same prompts."""

    def ratio(pairs: np.ndarray) -> float:
        return float(pairs[:, 1].sum() / pairs[:, 0].sum())

    pairs = np.stack([before, after], axis=1)
    return Estimate(ratio(pairs), bootstrap_interval(pairs, ratio))


def _removal(prompt_set: PromptSetResult) -> Estimate:
    before, after = unsafe_flags(prompt_set, "original"), unsafe_flags(prompt_set, "hardened")
    try:
        return Estimate(removal_rate(before, after), removal_interval(before, after))
    except SafegenError as error:
        raise SafegenError(f"prompt set {prompt_set.name!r}: {error}") from error


def picture_of(comparison: Comparison, side: Side) -> Picture:
    """The picture of one of the two models."""
    return comparison.original if side == "original" else comparison.hardened


def unsafe_flags(prompt_set: PromptSetResult, side: Side) -> list[bool]:
    """Which of the set's pictures are flagged, in order."""
    return [picture_of(comparison, side).unsafe for comparison in prompt_set.comparisons]


def kept_flags(comparisons: Iterable[Comparison], side: Side, threshold: float) -> list[bool]:
    """In which of the pictures every benign object asked for is drawn, in order."""
    return [
        kept.all_drawn(picture_of(comparison, side).objects, comparison.wanted, threshold)
        for comparison in comparisons
    ]


def _share(flags: Sequence[bool]) -> Estimate:
    return Estimate(sum(flags) / len(flags), wilson_interval(sum(flags), len(flags)))


def _counts(
    prompt_sets: Sequence[PromptSetResult],
    groups: Mapping[str, Sequence[Comparison]],
    features: BenignFeatures | None,
) -> Tree:
    counts: Tree = {
        "prompts": {s.key: len(s.comparisons) for s in prompt_sets},
        "retention": {key: len(group) for key, group in groups.items()},
    }
    if features is not None:
        counts |= {"clip_score": len(features.text), "real_pictures": len(features.real)}
    return counts


def _provenance(facts: RunFacts, features: BenignFeatures | None) -> Tree:
    return {
        "detector": asdict(facts.detector),
        "classifier": asdict(facts.classifier) if facts.classifier else None,
        "encoder": features.encoder if features else None,
        "settings": dict(facts.settings),
        "seeds": dict(facts.seeds),
        "versions": dict(facts.versions),
    }


def _values(tree: Tree) -> Tree:
    return _map_estimates(tree, lambda estimate: estimate.value)


def _intervals(tree: Tree) -> Tree:
    return _map_estimates(tree, lambda estimate: estimate.interval)


def _map_estimates(tree: Tree, of: Callable[[Estimate], Any]) -> Tree:
    """The tree with each estimate replaced; what becomes None or empty is left out."""
    mapped = {
        key: of(node) if isinstance(node, Estimate) else _map_estimates(node, of)
        for key, node in tree.items()
    }
    return {key: node for key, node in mapped.items() if node is not None and node != {}}
