"""Assembly of the trained parts as a diffusers pipeline in half precision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from safegen.files import folder_atomically, write_atomically
from safegen.lab.build.diffusion import new_scheduler
from safegen.lab.safety_checker import NORMALISATION
from safegen.models.safety_checker import image_processor


def assemble(parts: Path, destination: Path) -> None:
    """Write the lab's weights folder from the stages' results in ``parts``.

    The folder is a complete ``StableDiffusionPipeline``; the second UNet, both halves of CLIP
    and the ONNX networks lie beside its parts.
    """
    clip = CLIPModel.from_pretrained(parts / "clip")
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(parts / "vae"),
        text_encoder=_text_half(clip),
        tokenizer=CLIPTokenizer.from_pretrained(parts / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(parts / "unet"),
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with folder_atomically(destination) as folder:
        pipeline.to(torch.float16).save_pretrained(folder)
        filtered = UNet2DConditionModel.from_pretrained(parts / "unet_filtered")
        filtered.to(torch.float16).save_pretrained(folder / "unet_filtered")
        clip.to(torch.float16).save_pretrained(folder / "clip")
        pipeline.tokenizer.save_pretrained(folder / "clip")
        image_processor(clip.config, NORMALISATION).save_pretrained(folder / "clip")
        for config in folder.glob("*/config.json"):
            tidy(config)
        for network in parts.glob("*.onnx"):
            shutil.copy(network, folder / network.name)


def tidy(config: Path) -> None:
    """Remove the part's build path, and have transformers load its half-precision file as
    float32, as diffusers loads the rest."""
    settings = json.loads(config.read_text())
    settings.pop("_name_or_path", None)
    if "dtype" in settings:
        settings["dtype"] = "float32"
    write_atomically(config, json.dumps(settings, indent=2) + "\n")


def _text_half(clip: CLIPModel) -> CLIPTextModel:
    text = CLIPTextModel(clip.config.text_config)
    # Both classes hold the same layers; only the position of the prefix differs.
    weights = clip.text_model.state_dict()
    own = text.state_dict()
    prefix = "text_model." if any(name.startswith("text_model.") for name in own) else ""
    text.load_state_dict({f"{prefix}{name}": value for name, value in weights.items()})
    return text
