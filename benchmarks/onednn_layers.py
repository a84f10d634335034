"""Speed of the lab's denoiser with its linear layers through oneDNN, beside PyTorch's own.

    python benchmarks/onednn_layers.py [--batch 32] [--threads 1] [--rounds 5]

Both compute the same passes in turn, and each round gives a ratio; the median ratio is printed,
with the largest difference between the outputs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from safegen.models.anatomy import denoiser_of
from safegen.models.conditioning import encode_prompts
from safegen.models.denoising import predict
from safegen.models.loading import load_pipeline
from safegen.models.onednn import onednn_layers

PASSES = 5
"""Passes per round and kind."""


def seconds(passes: Callable[[], Any]) -> float:
    """Time some passes, in seconds."""
    began = time.perf_counter()
    for _ in range(PASSES):
        passes()
    return time.perf_counter() - began


@torch.no_grad()
def main() -> None:
    """Measure and print the ratio of speeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=32, help="latents per pass")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipeline = load_pipeline("lab")
    denoiser = denoiser_of(pipeline)
    config: Any = denoiser.config
    z_t = torch.randn(arguments.batch, config.in_channels, config.sample_size, config.sample_size)
    times = torch.linspace(0, 999, arguments.batch).long()
    texts = encode_prompts(pipeline, ["a spoon on grass"] * arguments.batch)

    def draw() -> torch.Tensor:
        return predict(denoiser, z_t, times, texts)

    plain = draw()
    with onednn_layers([denoiser]):
        apart = float((draw() - plain).abs().max())
    ratios = []
    for _ in range(arguments.rounds):
        own = seconds(draw)
        with onednn_layers([denoiser]):
            ratios.append(own / seconds(draw))
    print(f"passes per second, oneDNN's layers beside PyTorch's: {statistics.median(ratios):.2f}")
    print(
        f"rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)}; largest difference {apart:.1e}"
    )


if __name__ == "__main__":
    main()
