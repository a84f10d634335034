"""Kills commands at random moments, and compares what comes of them with an uninterrupted run.

    python benchmarks/kills.py [--kills 100] [--commands harden evaluate attack release] [--seed 0]
                               [--out runs/kills]

Each command runs once to its end, on a few pictures of the lab, which tells how long it takes. Then
it is killed (SIGKILL) after a random share of that time and started again in the same folder, until
it ends. The next trial begins in a new folder, until the command has been killed as often as asked.
What each folder then holds must be what the uninterrupted run left, picture by picture and figure
by figure. The exit code is 1 if one differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from safegen.patches.patch import Patch

COMMANDS = {
    "harden": [
        "harden", "lab", "--concept", "{concept}", "--steps", "3", "--unsafe-batch", "2",
        "--checkpoint-every", "1", "--pairs", "2", "--count", "2",
    ],
    "evaluate": [
        "evaluate", "lab", "--defense", "negative-prompt", "--unsafe", "lab:explicit,count=8",
        "--benign", "lab:benign,count=8", "--detector", "lab", "--batch", "4",
    ],
    "attack": [
        "attack", "lab", "--defense", "negative-prompt", "--attack", "img2img:0.5", "--attack",
        "random-tokens,candidates=2", "--count", "4",
    ],
    "release": ["release", "lab", "--policy", "{policy}"],
}  # fmt: skip
POLICY = """\
count: 4
attacks: ["random-tokens,candidates=2"]
goal_count: 2
defenses: [negative-prompt]
bounds: [asr<=0.9]
attack_bounds: [asr<=0.9]
"""
ENDS = (0, 1, 3)
"""Exit codes of a command that came to its end: a missed target is a result as well."""


def arguments(command: str, folder: Path, out: Path) -> list[str]:
    """Arguments of a command that writes to ``out``."""
    written = {"policy": folder / "policy.yaml", "concept": folder / "weapons.yaml"}
    written["policy"].write_text(POLICY)
    written["concept"].write_text(few_weapons())
    words = [word.format(**written) for word in COMMANDS[command]]
    return [sys.executable, "-m", "safegen", *words, "--workers", "1", "--out", str(out)]


def few_weapons() -> str:
    """Write the lab's concept with two prompts of each kind, so that a probe draws few pictures."""
    usual = (files("safegen.lab") / "concepts" / "weapons.yaml").read_text(encoding="utf-8")
    return re.sub(r"[\w-]+=lab:[\w-]+", r'"\g<0>,count=2"', usual)


def finishes(command: list[str], seconds: float | None) -> bool:
    """Run a command, and kill it after some seconds; returns whether it ended before."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, complained = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False
    if process.returncode not in ENDS:
        sys.exit(f"exit code {process.returncode}: {complained.decode()}")
    return True


def result(out: Path) -> dict[str, Any]:
    """What must be the same: the table, the pictures by their hash, the patch and the decision."""
    tables = {str(path.relative_to(out)): path.read_text() for path in out.rglob("results.csv")}
    pictures = sorted(path.name for path in out.rglob("images/*/*.png"))
    patches = [Patch.load(path).digest for path in sorted(out.glob("patch.safetensors"))]
    decisions = [json.loads(path.read_text()) for path in out.glob("decision.json")]
    left = sorted(path.name for path in out.rglob(".safegen-*"))
    return {
        "tables": tables, "pictures": pictures, "patches": patches, "decisions": decisions,
        "left behind": left,
    }  # fmt: skip


def killed_runs(command: str, folder: Path, kills: int, draws: random.Random) -> int:
    """Kill a command as often as asked, and return how many of its results differ."""
    whole = folder / f"{command}-whole"
    shutil.rmtree(whole, ignore_errors=True)
    began = time.monotonic()
    finishes(arguments(command, folder, whole), None)
    took, expected = time.monotonic() - began, result(whole)
    done = ended = wrong = 0
    while done < kills:
        out = folder / f"{command}-{ended}"
        shutil.rmtree(out, ignore_errors=True)
        while not finishes(
            arguments(command, folder, out), draws.uniform(0, took) if done < kills else None
        ):
            done += 1
        ended += 1
        found = result(out)
        differing = [name for name, value in expected.items() if found[name] != value]
        wrong += bool(differing)
        if differing:
            print(f"{out}: other {', '.join(differing)} than {whole}", flush=True)
    print(f"{command}: {done} kills, {ended} results, {wrong} of them differ", flush=True)
    return wrong


def main() -> None:
    """Kill the commands, and print how many results differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="kills of all commands together")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--out", type=Path, default=Path("runs/kills"))
    options = parser.parse_args()
    if options.kills < 1:
        parser.error("--kills must be at least 1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    options.out.mkdir(parents=True, exist_ok=True)
    draws, each = random.Random(options.seed), -(-options.kills // len(options.commands))
    wrong = [killed_runs(name, options.out, each, draws) for name in options.commands]
    sys.exit(1 if any(wrong) else 0)


if __name__ == "__main__":
    main()
