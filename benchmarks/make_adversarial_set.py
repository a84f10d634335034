"""Maker of the lab's adversarial set: SneakyPrompt on the original model and on ESD.

    python benchmarks/make_adversarial_set.py --esd esd-x.safetensors [--goals 100] [--workers 2]
    python benchmarks/make_adversarial_set.py --describe

The first command searches in both forms behind a text filter, draws the found prompts with other
defenses, and writes the set. The run folder keeps all results, so the same command resumes an
interrupted search. The second command updates the figures of docs/adversarial_set.md, the set's
datasheet, from the file.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safegen.attacks._text_filter import TextFilter
from safegen.cli._console import Console
from safegen.cli._progress import PhaseProgress
from safegen.evaluation.executors import ExecutorOptions
from safegen.evaluation.found_prompts import Row, add_transfers, found_prompts, write_prompts
from safegen.evaluation.run import Progress, observe
from safegen.evaluation.settings import AttackSettings, EvaluationSettings
from safegen.files import write_atomically
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.pictures import SAMPLING
from safegen.lab.prompts import ADVERSARIAL_FILE, lab_prompts
from safegen.prompts import Prompt
from safegen.prompts._records import CSV

ATTACKS = ("sneakyprompt:n", "sneakyprompt:p")
FIRST_GOAL = 100
"""First held-out explicit prompt that the lab's tables neither draw nor attack."""
OTHERS = ("safety-filter", "sld-max", "negative-prompt")
"""Defenses that draw the found prompts, beside those they were found on."""
BATCH = 4
DATASHEET = Path(__file__).parents[1] / "docs" / "adversarial_set.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"


def goals_from(first: int, count: int) -> list[Prompt]:
    """List held-out explicit prompts, with the lab's own ids and seeds."""
    return lab_prompts("explicit", "held-out", first + count)[first:]


def search_settings(esd: str, goals: Sequence[Prompt], folder: Path) -> EvaluationSettings:
    """Build the settings of the search for all goals, which are written to the folder."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerows([("id", "prompt", "seed"), *((each.id, each.text, each.seed) for each in goals)])
    file = folder / "goals.csv"
    write_atomically(file, text.getvalue())
    return EvaluationSettings(
        model="lab",
        defenses=(f"esd:{esd}",),
        unsafe=(),
        observers=("detector:lab",),
        sampling=SAMPLING,
        concept=LAB_WEAPONS,
        batch=BATCH,
        attack=AttackSettings(ATTACKS, goals=f"own:{file}", judge="lab", clip="lab"),
    )


def chosen(found: Iterable[Row], goals: Sequence[Prompt]) -> list[Row]:
    """List the found prompts that the text filter lets pass, each once, in their goals' order.

    A prompt found on both the original model and ESD counts as the original's.
    """
    by_text = {goal.text: goal for goal in goals}
    text_filter = TextFilter(LAB_WEAPONS)
    rows: dict[tuple[str, str], Row] = {}
    for row in found:
        if not text_filter.refuses(row["prompt"]):
            rows.setdefault((row["attack"], row["prompt"]), _labelled(row, by_text[row["goal"]]))
    return sorted(rows.values(), key=lambda row: (row["goal_id"], row["id"]))


def _labelled(row: Row, goal: Prompt) -> Row:
    number = goal.id.rpartition("-")[2]
    known = {name: value for name, value in row.items() if name != "passes"}  # it makes none
    return known | {
        "id": f"lab-{row['attack']}-{row['defense']}-{number}",
        "goal_id": goal.id,
        "asked": "+".join(goal.asked),
    }


def figures(file: Path) -> str:
    """Write the datasheet's figures of a set, as a Markdown table."""
    rows = [record.fields for record in CSV.records(file)]
    drawn = dict.fromkeys(name for row in rows for name in row["drawn_with"].split())
    titles = ["form", "found on", "prompts", "goals", "queries drawn, mean"]
    titles += [f"drawn by {name}" for name in drawn]
    lines = [_line(titles), _line(["---"] * len(titles))]
    for attack, defense in dict.fromkeys((row["attack"], row["defense"]) for row in rows):
        group = [row for row in rows if (row["attack"], row["defense"]) == (attack, defense)]
        goals = len({row["goal_id"] for row in group})
        pictures = sum(int(row["pictures"]) for row in group) / len(group)
        cells = [attack, defense, str(len(group)), str(goals), f"{pictures:.1f}"]
        lines.append(_line([*cells, *(_transfer(group, name) for name in drawn)]))
    return "\n".join(lines) + "\n"


def _transfer(rows: Sequence[Any], defense: str) -> str:
    drawn = [row for row in rows if defense in row["drawn_with"].split()]
    if not drawn:
        return "all"  # they were found on it
    return f"{sum(defense in row['transfers_to'].split() for row in drawn) / len(drawn):.0%}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def describe(file: Path, datasheet: Path) -> None:
    """Write a set's figures between the datasheet's two marks."""
    before, _, rest = datasheet.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    write_atomically(datasheet, f"{before}{BEGIN}{figures(file)}{END}{after}")


def make(
    settings: EvaluationSettings,
    goals: Sequence[Prompt],
    folder: Path,
    out: Path,
    workers: int,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> int:
    """Search, choose, draw with other defenses, and write; return the number of prompts."""
    options = ExecutorOptions(workers)
    observe(settings, folder, options=options, on_progress=on_progress)
    rows = chosen(found_prompts(folder, settings), goals)
    if rows:
        others = replace(settings, defenses=(*settings.defenses, *OTHERS))
        add_transfers(rows, others, folder, options=options, on_progress=on_progress)
        write_prompts(out, rows)
    return len(rows)


def main() -> None:
    """Make what is missing and write the set, or its figures into the datasheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--esd", help="patch of ESD, as 'safegen erase lab --method esd-x' makes")
    parser.add_argument("--goals", type=int, default=100, help="prompts to find words for")
    parser.add_argument("--workers", type=int, default=1, help="processes, one for each core")
    parser.add_argument("--folder", type=Path, default=Path("runs/adversarial_set"))
    parser.add_argument("--out", type=Path, default=ADVERSARIAL_FILE)
    parser.add_argument("--describe", action="store_true", help="only update the datasheet")
    arguments = parser.parse_args()
    if arguments.describe:
        describe(arguments.out, DATASHEET)
        return
    if arguments.esd is None:
        parser.error("give a patch of ESD: --esd FILE")
    goals = goals_from(FIRST_GOAL, arguments.goals)
    settings = search_settings(arguments.esd, goals, arguments.folder)
    with PhaseProgress(Console()) as progress:
        count = make(
            settings,
            goals,
            arguments.folder,
            arguments.out,
            arguments.workers,
            lambda at: progress.show(at.phase, at.done, at.total, at.detail),
        )
    print(f"{count} prompts of {4 * len(goals)} searches: {arguments.out}")
    if count:
        print(figures(arguments.out))
        print("for the datasheet: python benchmarks/make_adversarial_set.py --describe")


if __name__ == "__main__":
    main()
