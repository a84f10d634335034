"""Verdict of an evaluation in sentences: what removes most, and where safegen is not ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from safegen.report.measures import measure, value_text
from safegen.report.standing import REMOVAL, Standing
from safegen.report.wording import listed
from safegen.results.records import ORIGINAL, Estimate

COMPARABLE = 0.5
"""Share of safegen's removal that a baseline must reach before what it keeps is compared: a
defense that removes little keeps much."""
NOT_MEASURED = (
    "There is no trade-off to show: it takes the removal rate on prompts that ask for the concept, "
    "and the retention or CLIP score on prompts that do not."
)


def headline(found: Standing) -> str:
    """Name the defense that removes most, on the mean of the unsafe sets, and what it keeps."""
    names = _removing_most(found)
    if not names:
        return "No defense has a removal rate on every unsafe prompt set."
    most = found.mean_removal[names[0]].value
    kept = [_kept_text(found, name) for name in names]
    before = _kept_text(found, ORIGINAL)
    verb = "removes most:" if len(names) == 1 else "each remove most:"
    if len(found.mean_removal) == 2:  # the original and one defense, so there is no most
        verb = "removes"
    return (
        f"{listed(names)} {verb} "
        f"{value_text(REMOVAL, most)} of the unsafe pictures on {listed(list(found.removal))} "
        f"prompts, with a {measure(found.kept_metric).title} of {listed(kept)} on "
        f"{listed(found.kept_sets)} ones (undefended {before})."
    )


def safegen_verdict(found: Standing) -> str:
    """Write whether safegen alone is ahead of every baseline, and where not; empty if it or any
    baseline was not evaluated on all unsafe sets."""
    ours = found.ours
    baselines = [name for name in found.mean_removal if found.kinds[name] == "baseline"]
    if ours is None or ours not in found.mean_removal or not baselines:
        return ""
    sets = found.removal.items()
    behind = [
        *(_removing_more(name, ours, figures, baselines) for name, figures in sets),
        _keeping_more(found, ours, baselines),
    ]
    clauses = [clause for clause in behind if clause]
    if clauses:
        return f"{_lead(found, ours)}is not ahead everywhere: {'; '.join(clauses)}."
    each = "the one baseline" if len(baselines) == 1 else f"each of the {len(baselines)} baselines"
    places = listed([f"on {name}" for name in found.removal])
    return (
        f"{_lead(found, ours)}is ahead of {each} in removal {places} prompts, and none that "
        "removes at least half as much keeps more."
    )


def _removing_most(found: Standing) -> list[str]:
    """Find the defenses with the highest mean removal rate."""
    removed = {name: each.value for name, each in found.mean_removal.items() if name != ORIGINAL}
    most = max(removed.values(), default=None)
    return [name for name, value in removed.items() if value == most]


def _lead(found: Standing, ours: str) -> str:
    """Begin a sentence on safegen alone; with its figures if the headline has others'."""
    if _removing_most(found) == [ours]:
        return "It "
    removed = value_text(REMOVAL, found.mean_removal[ours].value)
    title = measure(found.kept_metric).title
    kept = _kept_text(found, ours)
    return f"{ours} alone removes {removed}, with a {title} of {kept}, and "


def _kept_text(found: Standing, name: str) -> str:
    kept = found.kept.get(name)
    return value_text(found.kept_metric, kept.value) if kept else "unknown"


def _removing_more(
    prompt_set: str, ours: str, removed: Mapping[str, Estimate], baselines: Sequence[str]
) -> str:
    """Name the baselines that remove as much as safegen on a set, or more; empty without any."""
    least = removed[ours].value
    ahead = [name for name in baselines if removed[name].value >= least]
    texts = [f"{name} {value_text(REMOVAL, removed[name].value)}" for name in ahead]
    listing = listed([f"it removes {value_text(REMOVAL, least)}", *texts])
    return f"on {prompt_set} prompts {listing}" if ahead else ""


def _keeping_more(found: Standing, ours: str, baselines: Sequence[str]) -> str:
    """Name the baselines that keep more than safegen and remove enough; empty without any."""
    own, least = found.kept.get(ours), COMPARABLE * found.mean_removal[ours].value
    kept = {name: found.kept[name].value for name in baselines if name in found.kept}
    ahead = [
        f"{name} ({value_text(found.kept_metric, value)})"
        for name, value in kept.items()
        if own and value > own.value and found.mean_removal[name].value >= least
    ]
    if not ahead:
        return ""
    remove, keep = ("removes", "keeps") if len(ahead) == 1 else ("remove", "keep")
    return f"{listed(ahead)} {keep} more, and {remove} at least half as much"
