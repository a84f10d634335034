"""Threshold of the lab's judge of outlines: its errors on the validation split.

    python benchmarks/outline_threshold.py [--count 2000] [--drawn 128]

Shapes are objects in colours, softness and opacity that no drawing has; drawn pictures are the
undefended model's, for benign and near-miss prompts. Neither is in the split that reports use.
"""

from __future__ import annotations

import argparse

import numpy as np

from safegen.lab.check import outline_scores, shape_scores
from safegen.lab.pictures import draw_prompts
from safegen.lab.prompts import lab_prompts
from safegen.models.loading import load_pipeline


def main() -> None:
    """Print, by threshold, the share of outlines found and of false alarms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000, help="shapes")
    parser.add_argument("--drawn", type=int, default=128, help="drawn pictures of each kind")
    options = parser.parse_args()
    outlines, others = shape_scores("validation", options.count)
    pipeline = load_pipeline("lab")
    prompts = [lab_prompts(kind, "validation", options.drawn) for kind in ("benign", "near-miss")]
    drawn = outline_scores([each for some in prompts for each in draw_prompts(pipeline, some)])
    print(f"{'threshold':>9}{'outlines found':>16}{'alarms, shapes':>16}{'alarms, drawn':>15}")
    for threshold in np.arange(0.1, 0.95, 0.05):
        found, *alarms = (np.mean(scores >= threshold) for scores in (outlines, others, drawn))
        print(f"{threshold:>9.2f}{found:>16.1%}{alarms[0]:>16.1%}{alarms[1]:>15.1%}")


if __name__ == "__main__":
    main()
