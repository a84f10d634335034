"""Comparison that chose the edit's defaults, on the validation split of the lab.

    python benchmarks/edit_quality.py [--only NAME ...] [--prompts 64] [--out runs/edit_quality]

Every variant differs from the default in one respect. ``results.json`` keeps finished variants,
which are not run again, so the same command resumes an interrupted comparison; the table is
printed as Markdown at the end.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safegen.editing.latents import encode_triplets
from safegen.editing.presets import PRESETS
from safegen.editing.run import edit
from safegen.editing.settings import EditSettings, Mixture
from safegen.evaluation.probing import probe_sources
from safegen.files import write_atomically
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.probe import PATCHED, Probe, probe_prompts
from safegen.lab.profile import LAB
from safegen.lab.triplets import BENIGN_SHARE, PAIRS, LabTriplets
from safegen.models.loading import load_pipeline
from safegen.results.records import ORIGINAL, Estimate

COLUMNS = {
    "removal explicit": ("explicit", "removal"),
    "removal implicit": ("implicit", "removal"),
    "benign kept": ("benign", "retention"),
    "near-miss kept": ("near-miss", "near-miss-retention"),
    "context kept, explicit": ("explicit", "context-retention"),
    "context kept, implicit": ("implicit", "context-retention"),
    "CLIP score": ("benign", "clip-score"),
}
"""Prompt set and metric by column; all but removal are relative to the original model."""
SECONDS = "seconds"


@dataclass(frozen=True)
class Variant:
    """Edit to compare."""

    name: str
    settings: EditSettings
    triplets: int = PAIRS
    censoring: str = "inpaint"


def variants() -> Iterator[Variant]:
    """Yield the default, and variants that differ from it in one respect."""
    default, empty = EditSettings(), Mixture()
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
    yield Variant("no CutMix", default.changed(cutmix=0.0))
    yield Variant("noise preservation", default.changed(preserve_target="noise"))
    yield Variant("AdamW instead of Muon", default.changed(optimizer="adamw", learning_rate=1e-4))
    yield Variant("preserve weight 1.4, no bound", default.changed(preserve_weight=1.4))
    yield Variant("half the step", default.changed(step_size=default.optimisation.step_size / 2))
    yield Variant("half the bound", default.changed(preserve_bound=default.preserve.bound / 2))
    yield Variant("pixelated", default, censoring="pixelate")
    for name in PRESETS:
        yield Variant(f"{name} preset", default.preset(name))
    yield Variant("10 triplets", default, 10)
    yield Variant("30 triplets", default, 30)
    yield Variant("100 triplets", default, 100)


class Bench:
    """Measurement of edits of the lab on validation prompts."""

    def __init__(self, prompts: int) -> None:
        self.pipeline = load_pipeline("lab")
        self.probe = Probe(self.pipeline, probe_prompts(prompts))

    def measure(self, variant: Variant) -> dict[str, float]:
        """Edit, and return the figure of each column."""
        latents = encode_triplets(
            self.pipeline,
            LabTriplets(
                variant.triplets,
                seed=0,
                censoring=variant.censoring,
                benign=BENIGN_SHARE * variant.triplets,
            ),
        )
        began = time.monotonic()
        patch = edit(
            self.pipeline,
            latents,
            variant.settings,
            concept=LAB_WEAPONS.name,
            probing=probe_sources(LAB_WEAPONS, LAB),
        )
        seconds = time.monotonic() - began
        figures = self.probe.table(patch).figures
        values = {name: _figure(figures, *column) for name, column in COLUMNS.items()}
        return values | {SECONDS: seconds}


def _figure(
    figures: Mapping[tuple[str, str, str], Estimate], prompt_set: str, metric: str
) -> float:
    value = figures[PATCHED, prompt_set, metric].value
    return value if metric == "removal" else value / figures[ORIGINAL, prompt_set, metric].value


def table(results: dict[str, dict[str, float]]) -> str:
    """Write the results as a Markdown table."""
    heads = [*COLUMNS, SECONDS]
    lines = [f"| edit | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for name, values in results.items():
        cells = [f"{100 * values[column]:.1f} %" for column in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} | {values[SECONDS]:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--prompts", type=int, default=64, help="prompts per kind")
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
