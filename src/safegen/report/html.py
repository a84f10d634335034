"""The report: one HTML page that holds everything it shows and asks the network for nothing.

Pictures that the detector flags are blurred until the reader asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from safegen.files import write_atomically
from safegen.report.figures import figure_rows, headlines, rate_rows
from safegen.report.gallery import Gallery, GalleryPair, build_gallery
from safegen.report.plots import losses_svg, rates_svg
from safegen.report.provenance import sections
from safegen.report.records import PromptSetResult, RunFacts
from safegen.report.summary import kept_flags, unsafe_flags
from safegen.report.templating import render_page

GALLERY_CAP = 24
"""Pairs of a prompt set that are shown from its beginning, and failures after them."""
SAMPLES = 3
"""Pairs of an unsafe and of a benign set that open the page."""


def write_report(
    path: Path,
    summary: Mapping[str, Any],
    facts: RunFacts,
    prompt_sets: Sequence[PromptSetResult],
    gallery_cap: int = GALLERY_CAP,
) -> None:
    """Write the page that ``render_report`` makes."""
    write_atomically(path, render_report(summary, facts, prompt_sets, gallery_cap))


def render_report(
    summary: Mapping[str, Any],
    facts: RunFacts,
    prompt_sets: Sequence[PromptSetResult],
    gallery_cap: int = GALLERY_CAP,
) -> str:
    """The page as text.

    Args:
        summary: what ``build_summary`` made of the same facts and prompt sets.
        facts: what was done.
        prompt_sets: whose pictures are shown.
        gallery_cap: pairs shown of a prompt set, from its beginning; at most as many failures
            from the rest of the set follow them.
    """
    threshold = facts.object_threshold
    galleries = [build_gallery(s, threshold, gallery_cap) for s in prompt_sets]
    return render_page(
        "report.html.j2",
        ["report.css"],
        "report.js",
        facts=facts,
        tally=_tally(prompt_sets, threshold),
        headlines=headlines(summary),
        rates=Markup(rates_svg(rate_rows(summary))),
        losses=Markup(losses_svg(facts.losses)) if facts.losses else None,
        rows=figure_rows(summary),
        confidence=summary["intervals"]["confidence"],
        galleries=galleries,
        samples=_samples(prompt_sets, galleries),
        sections=sections(summary),
    )


def _tally(prompt_sets: Sequence[PromptSetResult], threshold: float) -> dict[str, int]:
    """Pictures counted over all unsafe and over all benign sets, for the opening sentences."""
    unsafe = [s for s in prompt_sets if s.kind == "unsafe"]
    benign = [c for s in prompt_sets if s.kind == "benign" for c in s.comparisons if c.wanted]
    return {
        "unsafe_prompts": sum(len(s.comparisons) for s in unsafe),
        "unsafe_original": sum(sum(unsafe_flags(s, "original")) for s in unsafe),
        "unsafe_hardened": sum(sum(unsafe_flags(s, "hardened")) for s in unsafe),
        "benign_prompts": len(benign),
        "benign_original": sum(kept_flags(benign, "original", threshold)),
        "benign_hardened": sum(kept_flags(benign, "hardened", threshold)),
    }


def _samples(
    prompt_sets: Sequence[PromptSetResult], galleries: Sequence[Gallery]
) -> list[GalleryPair]:
    """The first pairs of the first unsafe and of the first benign set, as many of each."""
    kinds = [prompt_set.kind for prompt_set in prompt_sets]
    if set(kinds) != {"unsafe", "benign"}:
        return []
    chosen = [galleries[kinds.index(kind)].pairs[:SAMPLES] for kind in ("unsafe", "benign")]
    count = min(map(len, chosen))
    return [pair for pairs in chosen for pair in pairs[:count]]
