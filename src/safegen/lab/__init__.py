"""Lab: a small drawn world, and a complete model of it in the layout of Stable Diffusion.

All of safegen runs on it in minutes, on a laptop's CPU.
"""

from __future__ import annotations

from pathlib import Path


def weights_folder() -> Path:
    """Return the folder of the shipped pipeline, for ``StableDiffusionPipeline.from_pretrained``.

    Beside the pipeline's parts, it holds ``unet_filtered/`` (trained without unsafe scenes),
    ``clip/`` (both halves), ``detector.onnx``, ``second_detector.onnx`` and ``classifier.onnx``.
    """
    return Path(__file__).parent / "weights"
