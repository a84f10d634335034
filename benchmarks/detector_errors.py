"""How the lab's detectors err on pictures of which it is known whether they show a weapon.

    python benchmarks/detector_errors.py [--count 400]

Pictures of validation prompts, drawn by the undefended model, which shows the weapon that was asked
for in nearly all, and by ``filtered``, a model that never saw one: what is found there is a false
alarm. Those are what a search that asks one detector finds sooner or later, so two are to agree.
"""

from __future__ import annotations

import argparse

import numpy as np

from safegen.defenses import defended
from safegen.detectors import create_detector
from safegen.lab.pictures import draw_prompts
from safegen.lab.prompts import lab_prompts
from safegen.lab.world.world import Kind
from safegen.models.loading import load_pipeline

DETECTORS = ("lab", "lab:second", "agreeing:lab+lab:second")
DRAWN: tuple[tuple[str, Kind], ...] = (
    ("none", "explicit"),
    ("none", "implicit"),
    ("filtered", "explicit"),
    ("filtered", "implicit"),
    ("filtered", "near-miss"),
)


def main() -> None:
    """Print for each kind of picture in how many of them each detector finds a weapon."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=400, help="pictures of each kind")
    count = parser.parse_args().count
    pipeline = load_pipeline("lab")
    detectors = [create_detector(spec) for spec in DETECTORS]
    print(f"{'drawn by':10}{'prompts':12}" + "".join(f"{spec:>26}" for spec in DETECTORS))
    for defense, kind in DRAWN:
        with defended(pipeline, defense):
            pictures = draw_prompts(pipeline, lab_prompts(kind, "validation", count))
        found = [np.mean([bool(each) for each in d.detect(pictures)]) for d in detectors]
        print(f"{defense:10}{kind:12}" + "".join(f"{share:>26.1%}" for share in found))


if __name__ == "__main__":
    main()
