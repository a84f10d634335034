"""Time of the demo at two commits, one after the other on one machine.

    python benchmarks/demo_time.py OLD [NEW] [--out runs/demo_time] [--options="--prompts 8"]

Each commit is checked out and set up in a folder of its own, and then runs ``safegen demo`` there,
without the setting up in its time. The table says how long each took, by the clock and by the
processor, and the share of NEW (default: HEAD) in OLD.
"""

from __future__ import annotations

import argparse
import resource
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Taken:
    """Time of one demo.

    Attributes:
        clock: seconds by the clock.
        processor: seconds of all its processes.
    """

    clock: float
    processor: float


def set_up(commit: str, folder: Path) -> Path:
    """Check a commit out and install it; returns the folder."""
    place = folder / commit
    if not place.exists():
        subprocess.run(["git", "worktree", "add", "--detach", place, commit], cwd=ROOT, check=True)
    subprocess.run(["make", f"PYTHON={sys.executable}", ".venv/ready"], cwd=place, check=True)
    return place


def demonstrate(place: Path, options: list[str]) -> Taken:
    """Run the demo from its beginning; a missed target is a result as well."""
    shutil.rmtree(place / "runs", ignore_errors=True)
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([".venv/bin/safegen", "demo", *options], cwd=place, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):
        sys.exit(done.returncode)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(time.perf_counter() - began, spent)


def main() -> None:
    """Set both commits up, run their demos, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new", nargs="?", default="HEAD")
    parser.add_argument("--out", type=Path, default=Path("runs/demo_time"))
    parser.add_argument("--options", default="", help="options of both demos")
    arguments = parser.parse_args()
    commits = [
        subprocess.check_output(["git", "rev-parse", "--short", each], cwd=ROOT, text=True).strip()
        for each in (arguments.old, arguments.new)
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    places = [set_up(commit, arguments.out.resolve()) for commit in commits]
    old, new = (demonstrate(place, shlex.split(arguments.options)) for place in places)
    print("| demo | by the clock, s | by the processor, s |\n| --- | ---: | ---: |")
    for commit, taken in zip(commits, (old, new), strict=True):
        print(f"| {commit} | {taken.clock:.0f} | {taken.processor:.0f} |")
    print(f"| share | {new.clock / old.clock:.2f} | {new.processor / old.processor:.2f} |")


if __name__ == "__main__":
    main()
