"""Errors of the lab's detectors on pictures that are known to show a weapon or none.

    python benchmarks/detector_errors.py [--count 400]

The undefended model draws validation prompts and shows the requested weapon in nearly all pictures;
``filtered`` is a model that never saw one, so detections in its pictures are false alarms. A search
that asks one detector finds such pictures sooner or later, so the lab's judges are two that agree.
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
    """Print the number of pictures of each kind in which each detector finds a weapon."""
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
