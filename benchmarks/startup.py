"""How long the command line takes to answer, beside an interpreter that does nothing.

    python benchmarks/startup.py [--runs 10]

Each is a process of its own, started in turn; printed are the median and the quickest, in
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
    """From the start of a process to its end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    """Start each in turn, and print."""
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
