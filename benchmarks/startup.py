"""Response time of the command line, beside an interpreter that does nothing.

    python benchmarks/startup.py [--runs 10]

Each command runs in a process of its own, in turn; the median and the quickest time are printed, in
milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import safegen": ["-c", "import safegen"],
    "safegen --help": ["-m", "safegen", "--help"],
    "safegen edit --help": ["-m", "safegen", "edit", "--help"],
    "safegen --version": ["-m", "safegen", "--version"],
}


def milliseconds(arguments: list[str]) -> float:
    """Time a process from its start to its end, in milliseconds."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    """Time each command in turn, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10)
    arguments = parser.parse_args()
    for command in COMMANDS.values():
        milliseconds(command)  # compiles what was never compiled
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(arguments.runs):
        for name, command in COMMANDS.items():
            times[name].append(milliseconds(command))
    for name, taken in times.items():
        print(f"{name:22}{statistics.median(taken):7.0f} ms   quickest {min(taken):5.0f} ms")


if __name__ == "__main__":
    main()
