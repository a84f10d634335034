"""Defenses for the tiny pipeline: patches, checkers and checkpoints as real files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from safegen.concepts import Concept
from safegen.defenses import DEFENSES, Defense, advunlearn, create_defense, duo, rece
from safegen.defenses.esd import EsdSettings, EsdTraining
from safegen.defenses.uce import erase
from safegen.models.anatomy import fingerprint, self_attention_names
from safegen.models.sampling import ImageRequest, SamplingSettings, generate
from safegen.patches.difference import difference
from safegen.patches.patch import Patch, apply

KNIVES = Concept("knives", "a knife", ("a knife", "knife"))
REQUESTS = [ImageRequest("a knife in the snow", 1), ImageRequest("a cat and a house", 2)]


@pytest.fixture(scope="session")
def knives() -> Concept:
    """A concept in the tiny tokenizer's words."""
    return KNIVES


@pytest.fixture(scope="session")
def pictures() -> Callable[..., np.ndarray]:
    """Generates two pictures (2, 16, 16, 3); 18 steps outlast every warm-up."""

    def make(
        pipeline: Any,
        guidance: float = 5.0,
        steps: int = 18,
        requests: Sequence[ImageRequest] = REQUESTS,
    ) -> np.ndarray:
        settings = SamplingSettings(steps=steps, guidance_scale=guidance)
        return np.stack([image for _, image in generate(pipeline, requests, settings)])

    return make


@pytest.fixture(scope="session")
def safegen_patch(build_pipeline: Callable[..., Any]) -> Patch:
    """A patch of self-attention, large enough to be seen in pictures."""
    unet = build_pipeline().unet
    generator = torch.Generator().manual_seed(0)
    parameters = dict(unet.named_parameters())
    differences = {
        name: 0.5 * torch.randn(parameters[name].shape, generator=generator)
        for name in self_attention_names(unet)
    }
    base = {"name": "tiny", "class": "UNet2DConditionModel", "fingerprint": fingerprint(unet)}
    return Patch(differences, {"base": base, "concept": "knives"})


def train_esd(pipeline: Any, variant: Any) -> Patch:
    settings = EsdSettings(variant=variant, iterations=3, learning_rate=1e-2, steps=3, batch=2)
    training = EsdTraining(pipeline, KNIVES, settings)
    for _ in training.run():
        pass
    return training.patch()


@pytest.fixture(scope="session")
def files(
    tmp_path_factory: pytest.TempPathFactory,
    build_pipeline: Callable[..., Any],
    safegen_patch: Patch,
    tiny_latents: Any,
) -> Path:
    """A folder with patches, triplets, another checkpoint and a checker that flags everything."""
    folder = tmp_path_factory.mktemp("defenses")
    safegen_patch.save(folder / "safegen.safetensors")
    tiny_latents.save(folder / "triplets.safetensors")
    finished = apply(build_pipeline(), safegen_patch)
    difference(build_pipeline(), finished).save(folder / "checkpoint.safetensors")
    for variant in ("x", "u"):
        train_esd(build_pipeline(), variant).save(folder / f"esd-{variant}.safetensors")
    erase(build_pipeline(), KNIVES, ["a cat"]).save(folder / "uce.safetensors")
    few = duo.DuoSettings(pairs=2, batch=2, rank=2, steps=3, learning_rate=0.1)
    duo.erase(build_pipeline(), KNIVES, [], few).save(folder / "duo.safetensors")
    brief = advunlearn.AdvUnlearnSettings(
        iterations=3, warmup=1, learning_rate=0.1, attack_steps=2, steps=3
    )
    trained = advunlearn.erase(build_pipeline(), KNIVES, [], ["a cat"], brief)
    trained.save(folder / "advunlearn.safetensors")
    rece.erase(build_pipeline(), KNIVES, ["a cat"]).save(folder / "rece.safetensors")
    build_pipeline(seed=5).unet.save_pretrained(folder / "unet")
    build_pipeline(seed=6).save_pretrained(folder / "model")
    checker, processor = published_checker(threshold=-1.5)
    checker.save_pretrained(folder / "checker")
    processor.save_pretrained(folder / "checker")
    return folder


def published_checker(threshold: float) -> tuple[Any, Any]:
    """A checker of the published shape (17 concepts) with random weights, and its processor."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    from safegen.models.clip_features import ImageNormalisation
    from safegen.models.safety_checker import image_processor

    torch.manual_seed(0)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8))
    torch.nn.init.constant_(checker.concept_embeds_weights, threshold)
    torch.nn.init.constant_(checker.special_care_embeds_weights, 2.0)
    return checker, image_processor(checker.config, ImageNormalisation((0.5,) * 3, (0.5,) * 3))


@pytest.fixture(scope="session")
def build_checker() -> Callable[..., tuple[Any, Any]]:
    """The builder of checkers with a given threshold."""
    return published_checker


ARGUMENTS = {
    "advunlearn": ":{files}/advunlearn.safetensors",
    "filtered": ":{files}/unet",
    "safety-filter": ":{files}/checker",
    "esd": ":{files}/esd-x.safetensors",
    "duo": ":{files}/duo.safetensors",
    "rece": ":{files}/rece.safetensors",
    "safe-denoiser": ":{files}/triplets.safetensors",
    "uce": ":{files}/uce.safetensors",
    "checkpoint": ":{files}/checkpoint.safetensors",
    "safegen": ":{files}/safegen.safetensors",
}
SPECS = [f"{name}{ARGUMENTS.get(name, '')}" for name in DEFENSES.names()] + [
    "filtered:{files}/model",
    "esd:{files}/esd-u.safetensors",
    "safegen:{files}/safegen.safetensors+sld-max",
    "esd:{files}/esd-x.safetensors+safegen:{files}/safegen.safetensors",
    "filtered:{files}/unet+negative-prompt+sld-medium+safety-filter:{files}/checker",
]


@pytest.fixture(params=SPECS)
def defense(request: pytest.FixtureRequest, files: Path) -> Defense:
    """Every registered defense, and stacks of them."""
    return create_defense(request.param.format(files=files), KNIVES)
