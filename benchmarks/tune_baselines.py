"""Each baseline at its best: sweeps of its strength on the lab's validation split.

    python benchmarks/tune_baselines.py [--budget 12] [--prompts 64] [--methods sld uce]
                                        [--out runs/tuning] [--workers 2]

Every baseline gets the same number of settings, its published ones first, on the same prompts and
seeds. Of these, the one that removes most is chosen among those that keep 97 % of benign and 90 %
of near-miss objects; where none does, among those that keep what the published setting keeps. The
same command resumes; a larger budget adds to it.

Written are ``table.md`` with both rows of each baseline, ``curves.csv`` with every point,
``run/report.html`` with its pictures, and ``tuned.yaml``, which

    safegen evaluate --preset lab --settings runs/tuning/tuned.yaml --out runs/tuned-table

takes as further defenses.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.errors import SafegenError
from safegen.files import write_atomically
from safegen.lab.tuning import (
    FLOORS,
    SWEEPS,
    Choice,
    Measured,
    choices,
    make_patches,
    measured,
    points_of,
    tuned_specs,
    tuning_settings,
)
from safegen.report.measures import interval_text, value_text
from safegen.report.wording import literal

if TYPE_CHECKING:
    from safegen.results.records import Estimate

HEAD = "| baseline | setting | removal | kept: benign | near-miss | keeps enough | spec |"
CURVE = ("baseline", "published", "removal", "benign", "near_miss", "spec")


def main() -> None:
    """Sweep, choose, and write."""
    options = _options()
    folder: Path = options.out
    chosen = [sweep for sweep in SWEEPS if sweep.name in options.methods]
    points = points_of(chosen, options.budget)
    settings = tuning_settings(points, folder, options.prompts)
    print(
        f"{len(points)} settings of {len(chosen)} baselines, 4 x {options.prompts} prompts each: "
        f"{(len(points) + 1) * 4 * options.prompts} pictures"
    )
    from safegen.cli import _showing as showing
    from safegen.cli._console import Console
    from safegen.cli._progress import PhaseProgress
    from safegen.evaluation.executors import ExecutorOptions
    from safegen.evaluation.run import evaluate

    console = Console()
    with PhaseProgress(console) as progress:
        make_patches(points, folder, progress.show)
        table = evaluate(
            settings,
            folder / "run",
            options=ExecutorOptions(options.workers),
            on_progress=lambda at: progress.show(at.phase, at.done, at.total, at.detail),
        )
    showing.write(table, settings, folder / "run", console)
    found = measured(points, table)
    best = choices(found)
    write_atomically(folder / "curves.csv", _curves(found))
    write_atomically(folder / "table.md", text := "\n".join([*_table(best), ""]))
    write_atomically(folder / "tuned.yaml", _settings(list(tuned_specs(best, folder))))
    print(text)


def _options() -> argparse.Namespace:
    names = [sweep.name for sweep in SWEEPS]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--budget", type=int, default=12, help="settings of each baseline")
    parser.add_argument("--prompts", type=int, default=64, help="prompts of each kind")
    parser.add_argument("--methods", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("runs/tuning"))
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    if options.budget < 1:
        parser.error("--budget must be at least 1")
    return options


def _table(best: Mapping[str, Choice]) -> Iterator[str]:
    """Both rows of each baseline, in Markdown."""
    yield HEAD
    yield "|---|---|--:|--:|--:|---|---|"
    for name, choice in best.items():
        for what, each in (("published", choice.published), ("tuned", choice.tuned)):
            kept = [_cell("retention", estimate) for estimate in each.kept]
            enough = "yes" if each.keeps(FLOORS) else "no"
            cells = [name, what, _cell("removal", each.removal), *kept, enough, each.point.spec]
            yield f"| {' | '.join(map(literal, cells))} |"


def _cell(metric: str, estimate: Estimate) -> str:
    return f"{value_text(metric, estimate.value)} ({interval_text(metric, estimate)})"


def _curves(found: list[Measured]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CURVE)
    for each in found:
        figures = (each.removal.value, *(kept.value for kept in each.kept))
        told = (each.point.sweep.name, each.point.published, *figures, each.point.spec)
        writer.writerow(told)
    return buffer.getvalue()


def _settings(specs: list[str]) -> str:
    """Write a settings file of ``safegen evaluate``."""
    lines = "".join(f"  - {json.dumps(spec, ensure_ascii=False)}\n" for spec in specs)
    return f"# Baselines tuned on validation prompts.\ndefense:\n{lines}"


if __name__ == "__main__":
    try:
        main()
    except SafegenError as error:
        raise SystemExit(f"tune_baselines: {error}") from error
