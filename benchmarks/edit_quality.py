"""Worth of each part of the edit, on the validation split of the lab's world.

    python benchmarks/edit_quality.py [--only NAME ...] [--seeds 0 1 2] [--prompts 64]
                                      [--model lab] [--out runs/edit_quality]

Every variant differs from the default in one respect. A seed is that of the triplets, the noise and
the order. ``results.json`` keeps finished edits, which are not run again, so the same command
resumes an interrupted comparison. The table is printed as Markdown at the end: the mean over seeds,
and the lowest and highest.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from safegen.editing.latents import encode_triplets
from safegen.editing.presets import PRESETS
from safegen.editing.run import edit
from safegen.editing.settings import EditSettings, Mixture
from safegen.evaluation.probing import probe_sources
from safegen.files import write_atomically
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.probe import OBSERVERS, PATCHED, Probe, probe_prompts
from safegen.lab.triplets import BENIGN_SHARE, PAIRS, LabTriplets
from safegen.models.loading import load_pipeline
from safegen.profiles import Profile, profile_for
from safegen.results.records import ORIGINAL, Estimate

COLUMNS = {
    "removal explicit": ("explicit", "removal"),
    "removal implicit": ("implicit", "removal"),
    "outlines left, explicit": ("explicit", "outlines-left"),
    "outlines left, implicit": ("implicit", "outlines-left"),
    "benign kept": ("benign", "retention"),
    "near-miss kept": ("near-miss", "near-miss-retention"),
    "place kept": ("benign", "place-retention"),
    "CLIP score": ("benign", "clip-score"),
}
"""Prompt set and metric by column; what is kept is relative to the original model."""
ABSOLUTE = ("removal", "outlines-left", "place-retention")
"""Metrics that are of the original's pictures, or for which there is nothing to keep."""
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
    yield Variant("text's stream not held", default.changed(preserve_text=0.0))
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
    """Measurement of edits of one of the lab's models on validation prompts."""

    def __init__(self, model: str, prompts: int) -> None:
        self.pipeline = load_pipeline(model)
        observers = (*OBSERVERS, "outlines:lab", "places:lab")
        self.probe = Probe(self.pipeline, probe_prompts(prompts), observers)
        self.profile = profile_for(self.pipeline) or Profile()

    def measure(self, variant: Variant, seed: int) -> dict[str, float]:
        """Edit, and return the figure of each column."""
        latents = encode_triplets(
            self.pipeline,
            LabTriplets(
                variant.triplets,
                seed=seed,
                censoring=variant.censoring,
                benign=BENIGN_SHARE * variant.triplets,
            ),
        )
        began = time.monotonic()
        patch = edit(
            self.pipeline,
            latents,
            variant.settings.changed(seed=seed),
            concept=LAB_WEAPONS.name,
            probing=probe_sources(LAB_WEAPONS, self.profile),
        )
        seconds = time.monotonic() - began
        figures = self.probe.table(patch).figures
        values = {name: _figure(figures, *column) for name, column in COLUMNS.items()}
        return values | {SECONDS: seconds}


def _figure(
    figures: Mapping[tuple[str, str, str], Estimate], prompt_set: str, metric: str
) -> float:
    value = figures[PATCHED, prompt_set, metric].value
    return value if metric in ABSOLUTE else value / figures[ORIGINAL, prompt_set, metric].value


def table(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Write the results as a Markdown table.

    Args:
        results: figures by variant, seed and column.
    """
    heads = ["seeds", *COLUMNS, SECONDS]
    lines = [f"| edit | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for name, runs in results.items():
        cells = [_spread([100 * run[column] for run in runs.values()]) for column in COLUMNS]
        seconds = fmean(run[SECONDS] for run in runs.values())
        lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} | {seconds:.0f} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    """Mean of shares in per cent, and their range if there are several."""
    extent = f" ({min(values):.1f}–{max(values):.1f})" if len(values) > 1 else ""
    return f"{fmean(values):.1f} %{extent}"


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(3)))
    parser.add_argument("--prompts", type=int, default=64, help="prompts per kind")
    parser.add_argument("--model", default="lab", help="model of the lab's world")
    parser.add_argument("--out", type=Path, default=Path("runs/edit_quality"))
    arguments = parser.parse_args()
    store = arguments.out / "results.json"
    results: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}
    bench = Bench(arguments.model, arguments.prompts)
    for variant in variants():
        if arguments.only is not None and variant.name not in arguments.only:
            continue
        runs = results.setdefault(variant.name, {})
        for seed in arguments.seeds:
            if str(seed) not in runs:
                runs[str(seed)] = bench.measure(variant, seed)
                write_atomically(store, json.dumps(results, indent=2))
                print(table({variant.name: {str(seed): runs[str(seed)]}}), flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
