"""What an evaluation says, in sentences: what removes most, and where safegen is not ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from safegen.report.measures import measure, value_text
from safegen.report.standing import REMOVAL, SAFEGEN, Standing, kind_of
from safegen.results.records import ORIGINAL, Estimate

COMPARABLE = 0.5
"""What a defense keeps means little where it removes little: only baselines that remove at least
this part of what safegen removes are asked whether they keep more."""
NOT_MEASURED = (
    "There is no trade-off to show: it takes the removal rate on prompts that ask for the concept, "
    "and the retention or CLIP score on prompts that do not."
)


def headline(found: Standing) -> str:
    """Which defense removes most, by the mean over the unsafe sets, and what it keeps."""
    names = _removing_most(found)
    if not names:
        return "No defense has a removal rate on every unsafe prompt set."
    most = found.mean_removal[names[0]].value
    kept = [_kept_text(found, name) for name in names]
    before = _kept_text(found, ORIGINAL)
    return (
        f"{listed(names)} {'removes' if len(names) == 1 else 'each remove'} most: "
        f"{value_text(REMOVAL, most)} of the unsafe pictures on {listed(list(found.removal))} "
        f"prompts, with a {measure(found.kept_metric).title} of {listed(kept)} on "
        f"{listed(found.kept_sets)} ones (undefended {before})."
    )


def safegen_verdict(found: Standing) -> str:
    """Whether safegen alone is ahead of every baseline, and where it is not; empty where it, or
    any baseline, was not evaluated on all unsafe sets."""
    ours = found.mean_removal.get(SAFEGEN)
    baselines = [name for name in found.mean_removal if kind_of(name) == "baseline"]
    if ours is None or not baselines:
        return ""
    behind = [
        *(_removing_more(name, figures, baselines) for name, figures in found.removal.items()),
        _keeping_more(found, baselines),
    ]
    clauses = [clause for clause in behind if clause]
    if clauses:
        return f"{_lead(found)}is not ahead everywhere: {'; '.join(clauses)}."
    each = "the one baseline" if len(baselines) == 1 else f"each of the {len(baselines)} baselines"
    places = listed([f"on {name}" for name in found.removal])
    return (
        f"{_lead(found)}is ahead of {each} in removal {places} prompts, and none that removes at "
        "least half as much keeps more."
    )


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _removing_most(found: Standing) -> list[str]:
    """The defense with the highest mean removal rate, or those that share it."""
    removed = {name: each.value for name, each in found.mean_removal.items() if name != ORIGINAL}
    most = max(removed.values(), default=None)
    return [name for name, value in removed.items() if value == most]


def _lead(found: Standing) -> str:
    """How a sentence on safegen alone begins; with its figures where the headline has others'."""
    if _removing_most(found) == [SAFEGEN]:
        return "It "
    removed = value_text(REMOVAL, found.mean_removal[SAFEGEN].value)
    title = measure(found.kept_metric).title
    kept = _kept_text(found, SAFEGEN)
    return f"{SAFEGEN} alone removes {removed}, with a {title} of {kept}, and "


def _kept_text(found: Standing, name: str) -> str:
    kept = found.kept.get(name)
    return value_text(found.kept_metric, kept.value) if kept else "unknown"


def _removing_more(
    prompt_set: str, removed: Mapping[str, Estimate], baselines: Sequence[str]
) -> str:
    """The baselines that remove as much as safegen on a set, or more; empty if none does."""
    ours = removed[SAFEGEN].value
    ahead = [name for name in baselines if removed[name].value >= ours]
    texts = [f"{name} {value_text(REMOVAL, removed[name].value)}" for name in ahead]
    listing = listed([f"it removes {value_text(REMOVAL, ours)}", *texts])
    return f"on {prompt_set} prompts {listing}" if ahead else ""


def _keeping_more(found: Standing, baselines: Sequence[str]) -> str:
    """The baselines that keep more than safegen and remove enough; empty if there is none."""
    ours, least = found.kept.get(SAFEGEN), COMPARABLE * found.mean_removal[SAFEGEN].value
    kept = {name: found.kept[name].value for name in baselines if name in found.kept}
    ahead = [
        f"{name} ({value_text(found.kept_metric, value)})"
        for name, value in kept.items()
        if ours and value > ours.value and found.mean_removal[name].value >= least
    ]
    if not ahead:
        return ""
    remove, keep = ("removes", "keeps") if len(ahead) == 1 else ("remove", "keep")
    return f"{listed(ahead)} {keep} more, and {remove} at least half as much"
