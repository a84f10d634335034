"""Spread of a hardening over seeds and rounding, on held-out prompts of the lab.

    python benchmarks/stability.py [--seeds 0 1 2 3 4] [--perturbed] [--prompts 256]
                                   [--model lab] [--concept weapons] [--pairs 100]
                                   [--out runs/stability]

Each run is ``safegen harden MODEL`` with nothing set but its seed, which is that of the triplets,
the noise and the order. ``--perturbed`` adds runs of the first seed whose rounding differs: two
threads, PyTorch's plain kernels, products in bfloat16. The same command resumes, and the table is
of all runs that the folder holds, so several processes may share the seeds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safegen.report.standing import SAFEGEN
from safegen.report.tables import read_summary
from safegen.results.records import ORIGINAL, Table
from safegen.statistics.intervals import wilson_interval

UNSAFE = ("explicit", "implicit")
ABSOLUTE = {"removal": UNSAFE, "outlines-left": UNSAFE}
RELATIVE = {
    "retention": ("benign",),
    "near-miss-retention": ("near-miss",),
    "place-retention": ("benign", "near-miss"),
    "clip-score": ("benign", "near-miss"),
}
"""Prompt sets by metric; the latter's figures are shares of the original model's."""
COUNTED = {"asr": "unsafe", "outlines-left": "outlines left"}
"""Metrics of which the pictures of all runs are counted together, and what they count."""
ONE_SIDED = 0.9
"""Confidence of the two-sided interval whose upper end holds at 95 %."""


@dataclass(frozen=True)
class Run:
    """One hardening.

    Attributes:
        name: name of its folder.
        seed: seed of everything.
        options: further options of the command.
        threads: threads of its processes; None leaves them as they are.
    """

    name: str
    seed: int
    options: tuple[str, ...] = ()
    threads: int | None = None


def runs_of(seeds: Sequence[int], perturbed: bool) -> Iterator[Run]:
    """List a run for each seed, and those of the first seed with other rounding."""
    for seed in seeds:
        yield Run(f"seed-{seed}", seed)
    if perturbed:
        yield Run("two-threads", seeds[0], threads=2)
        yield Run("plain-kernels", seeds[0], ("--plain-kernels",))
        yield Run("bf16", seeds[0], ("--precision", "bf16"))


def harden(run: Run, options: argparse.Namespace) -> None:
    """Run the command; a missed target is a result as well."""
    command = [
        *(sys.executable, "-m", "safegen", "harden", options.model, "--concept", options.concept),
        *("--seed", str(run.seed), "--count", str(options.prompts)),
        *("--out", str(options.out / run.name), *run.options),
    ]
    if options.pairs is not None:
        command += ["--pairs", str(options.pairs)]
    threads = {} if run.threads is None else {"OMP_NUM_THREADS": str(run.threads)}
    done = subprocess.run(command, env={**os.environ, **threads}, check=False)
    if done.returncode not in (0, 1):
        sys.exit(done.returncode)


def figures(table: Table) -> dict[str, float]:
    """Compute the compared figures of one run, in per cent."""
    found = {}
    for metrics, relative in ((ABSOLUTE, False), (RELATIVE, True)):
        for metric, sets in metrics.items():
            for prompt_set in sets:
                ours = table.figures.get((SAFEGEN, prompt_set, metric))
                original = table.figures.get((ORIGINAL, prompt_set, metric))
                if ours is not None:
                    whole = original.value if relative and original is not None else 1.0
                    found[f"{metric}, {prompt_set}"] = 100 * ours.value / whole
    return found


def counted(tables: Sequence[Table], metric: str, defense: str) -> tuple[int, int]:
    """Count the pictures of all runs that a metric tells of: how many, of how many."""
    cells = [table.figures.get((defense, name, metric)) for table in tables for name in UNSAFE]
    known = [cell for cell in cells if cell is not None]
    return sum(round(cell.value * cell.count) for cell in known), sum(cell.count for cell in known)


def print_table(tables: dict[str, Table]) -> None:
    """Print mean, worst and spread of each figure, and bounds from the pictures of all runs."""
    rows = [figures(table) for table in tables.values()]
    print(f"runs: {', '.join(tables)}\n")
    print("| per cent | mean | worst | standard deviation |\n| --- | ---: | ---: | ---: |")
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        worst = values.max() if name.startswith("outlines-left") else values.min()
        print(f"| {name} | {values.mean():.1f} | {worst:.1f} | {values.std(ddof=1):.1f} |")
    print()
    for metric, said in COUNTED.items():
        for defense in (ORIGINAL, SAFEGEN):
            hits, count = counted(list(tables.values()), metric, defense)
            bound = wilson_interval(hits, count, ONE_SIDED)[1]
            print(f"{defense}: of {count} pictures {hits} {said}, at 95 % at most {bound:.1%}")


def main() -> None:
    """Harden with each seed, then print the table of all runs in the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--perturbed", action="store_true", help="add runs of other rounding")
    parser.add_argument("--prompts", type=int, default=256, help="held-out prompts of each kind")
    parser.add_argument("--model", default="lab", help="model of the lab's world")
    parser.add_argument("--concept", default="weapons")
    parser.add_argument("--pairs", type=int, help="unsafe pairs (default: the usual number)")
    parser.add_argument("--out", type=Path, default=Path("runs/stability"))
    options = parser.parse_args()
    for run in runs_of(options.seeds, options.perturbed):
        harden(run, options)
    finished = sorted(path.parent for path in options.out.glob("*/summary.json"))
    if len(finished) < 2:
        sys.exit(f"{options.out}: holds {len(finished)} finished runs; a spread needs two")
    print_table({place.name: read_summary(place / "summary.json") for place in finished})


if __name__ == "__main__":
    main()
