"""Lab: a small drawn world, and complete models of it in the layouts of Stable Diffusion 1 and 3.

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


def sd3_weights_folder() -> Path:
    """Return the folder of ``lab-sd3``, which ``safegen lab build --model sd3`` makes anew.

    ``StableDiffusion3Pipeline.from_pretrained`` loads it with ``text_encoder_3=None`` and
    ``tokenizer_3=None``, as any model without T5.
    """
    return Path(__file__).parent / "weights_sd3"
