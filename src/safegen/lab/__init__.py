"""The lab: a small drawn world and a complete Stable-Diffusion-shaped model of it.

Everything safegen does runs on it for real, on a laptop's processor, in minutes.
"""

from __future__ import annotations

from pathlib import Path


def weights_folder() -> Path:
    """The folder of the shipped pipeline; ``StableDiffusionPipeline.from_pretrained`` reads it.

    Beside the pipeline's parts it holds ``unet_filtered/`` (trained without unsafe scenes),
    ``clip/`` (both halves), ``detector.onnx``, ``second_detector.onnx`` and ``classifier.onnx``.
    """
    return Path(__file__).parent / "weights"
