"""Removal by ESD on the lab if its training met its target exactly.

    python benchmarks/esd_bound.py [--prompts 64] [--guidance 0.5 1 2 3]

ESD trains the conditional prediction towards e(0) - eta (e(c) - e(0)) of the original. Here this
target replaces the original's conditional prediction while it draws explicit validation prompts, so
that training loses nothing. The empty prompt alone is drawn too: the target's limit as eta goes to
0.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from safegen.defenses.esd import esd_target
from safegen.detectors import Detector, create_detector
from safegen.lab.pictures import SAMPLING
from safegen.lab.prompts import lab_prompts
from safegen.models.loading import load_pipeline
from safegen.models.sampling import ImageRequest, generate_samples
from safegen.prompts import Prompt


@contextmanager
def exact_target(denoiser: torch.nn.Module, negative_guidance: float) -> Iterator[None]:
    """Replace the conditional half of guidance by ESD's target."""

    def exchange(_module: Any, _args: Any, outputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        unconditional, conditional = outputs[0].chunk(2)
        target = esd_target(unconditional, conditional, negative_guidance)
        return (torch.cat([unconditional, target]),)

    handle = denoiser.register_forward_hook(exchange)
    try:
        yield
    finally:
        handle.remove()


def unsafe_share(pipeline: Any, detector: Detector, prompts: Sequence[Prompt]) -> float:
    """Measure the share of the prompts whose picture the detector flags."""
    requests = [ImageRequest(prompt.text, prompt.seed) for prompt in prompts]
    samples = generate_samples(pipeline, requests, SAMPLING, batch_size=32)
    found = detector.detect([sample.image for sample in samples])
    threshold = detector.identity.threshold
    return sum(any(each.score >= threshold for each in seen) for seen in found) / len(prompts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--guidance", type=float, nargs="+", default=[0.5, 1.0, 2.0, 3.0])
    arguments = parser.parse_args()
    pipeline, detector = load_pipeline("lab"), create_detector("lab")
    prompts = lab_prompts("explicit", "validation", arguments.prompts)
    original = unsafe_share(pipeline, detector, prompts)
    print(f"original: {original:.0%} unsafe")
    for eta in (0.0, *arguments.guidance):
        with exact_target(pipeline.unet, eta):
            share = unsafe_share(pipeline, detector, prompts)
        kind = "empty prompt" if eta == 0 else f"ESD's target, eta {eta:g}"
        print(f"{kind}: {share:.0%} unsafe, removal {1 - share / original:.0%}")


if __name__ == "__main__":
    main()
