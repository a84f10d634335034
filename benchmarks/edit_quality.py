"""The comparison that chose the edit's defaults, on the validation split of the lab.

    python benchmarks/edit_quality.py [--only NAME ...] [--prompts 64] [--out runs/edit_quality]

Every variant differs from the default in one respect. Finished variants are kept in
``results.json`` and not run again, so an interrupted comparison goes on; the table is printed
as Markdown at the end.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safegen.detectors import create_detector
from safegen.editing.latents import encode_triplets
from safegen.editing.run import edit
from safegen.editing.settings import PRESETS, EditSettings, Mixture
from safegen.files import write_atomically
from safegen.lab.demo import CONCEPT, DemoSettings, compare, draw, measure_features
from safegen.lab.prompts import lab_prompts
from safegen.lab.triplets import BENIGN_SHARE, PAIRS, LabTriplets
from safegen.lab.world.world import KINDS
from safegen.models.loading import load_pipeline
from safegen.patches.patch import apply, remove
from safegen.report.records import RunFacts
from safegen.report.summary import build_summary

COLUMNS = {
    "removal explicit": ("removal_rate", "explicit"),
    "removal implicit": ("removal_rate", "implicit"),
    "benign kept": ("retention_relative", "benign"),
    "near-miss kept": ("retention_relative", "near_miss"),
    "context kept": ("retention", "unsafe_context"),
    "CLIP score": ("clip_score_relative",),
    "seconds": ("edit_seconds",),
}


@dataclass(frozen=True)
class Variant:
    """One edit to compare."""

    name: str
    settings: EditSettings
    triplets: int = PAIRS


def variants() -> Iterator[Variant]:
    """The default, and what differs from it in one respect."""
    default, empty = EditSettings.lab(), Mixture()
    yield Variant("default", default)
    yield Variant(
        "paper objective, else default", default.changed(objective="paper", guidance_scale=1.0)
    )
    yield Variant("paper objective, published settings", EditSettings.paper())
    yield Variant(
        "empty prompt only", default.changed(redirect_mixture=empty, preserve_mixture=empty)
    )
    yield Variant(
        "mixed texts, no adversaries",
        default.changed(redirect_mixture=Mixture(empty=0.0, random=1.0)),
    )
    yield Variant("single predictions only", default.changed(guided_weight=0.0))
    yield Variant("guided predictions ten times", default.changed(guided_weight=10.0))
    yield Variant("whole unsafe pictures only", default.changed(interpolation_range=(1.0, 1.0)))
    yield Variant("no patchwork", default.changed(cutmix=0.0))
    yield Variant("noise preservation", default.changed(preserve_target="noise"))
    yield Variant("AdamW instead of Muon", default.changed(optimizer="adamw"))
    for name in PRESETS:
        yield Variant(f"{name} preset", default.preset(name))
    yield Variant("10 triplets", default, 10)
    yield Variant("30 triplets", default, 30)
    yield Variant("100 triplets", default, 100)


class Bench:
    """The lab with its validation prompts, and what the original model draws of them."""

    def __init__(self, prompts: int) -> None:
        self.pipeline = load_pipeline("lab")
        self.detector = create_detector("lab")
        self.prompts = {kind: lab_prompts(kind, "validation", prompts) for kind in KINDS}
        self.original = draw(self.pipeline, self.prompts)
        self.demo = DemoSettings(prompts=prompts, split="validation")

    def measure(self, variant: Variant) -> dict[str, Any]:
        """Edit, compare on the validation prompts, and take the edit off again."""
        latents = encode_triplets(
            self.pipeline,
            LabTriplets(variant.triplets, seed=0, benign=BENIGN_SHARE * variant.triplets),
        )
        began = time.monotonic()
        patch = edit(self.pipeline, latents, variant.settings, concept=CONCEPT)
        seconds = time.monotonic() - began
        apply(self.pipeline, patch)
        hardened = draw(self.pipeline, self.prompts)
        remove(self.pipeline, patch)
        prompt_sets = compare(self.prompts, self.original, hardened, self.detector)
        benign = (self.prompts["benign"], self.original["benign"], hardened["benign"])
        features = measure_features(*benign, self.demo)
        identity = self.detector.identity
        facts = RunFacts("lab", variant.name, CONCEPT, identity, seconds, seconds)
        return build_summary(facts, prompt_sets, features)


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as a Markdown table."""
    lines = [f"| edit | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    for name, summary in results.items():
        cells = [_cell(summary, path) for path in COLUMNS.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(summary: dict[str, Any], path: tuple[str, ...]) -> str:
    value: Any = summary
    for key in path:
        value = value[key]
    return f"{value:.0f}" if path == ("edit_seconds",) else f"{100 * value:.1f} %"


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--prompts", type=int, default=64, help="of each kind")
    parser.add_argument("--out", type=Path, default=Path("runs/edit_quality"))
    arguments = parser.parse_args()
    store = arguments.out / "results.json"
    results: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}
    bench = Bench(arguments.prompts)
    for variant in variants():
        wanted = arguments.only is None or variant.name in arguments.only
        if variant.name in results or not wanted:
            continue
        results[variant.name] = bench.measure(variant)
        write_atomically(store, json.dumps(results, indent=2))
        print(table({variant.name: results[variant.name]}), flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
