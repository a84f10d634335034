"""The cost of a run against torch's own count of operations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safegen.concepts import Concept
from safegen.evaluation.cost import DECODING, PASS, SUSTAINED, cost_of
from safegen.evaluation.settings import EvaluationSettings
from safegen.models.options import SamplingSettings
from safegen.models.shipped import FOLDER


def test_the_operations_are_those_of_the_published_networks() -> None:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    configs = {
        part: json.loads((FOLDER / "sd1" / part / "config.json").read_text())
        for part in ("unet", "vae")
    }
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(configs["unet"])
        autoencoder = AutoencoderKL.from_config(configs["vae"])
        latent, text = torch.zeros(1, 4, 64, 64), torch.zeros(1, 77, 768)
        for run, expected in (
            (lambda: unet(latent, torch.zeros(1), text), PASS),
            (lambda: autoencoder.decode(latent), DECODING),
        ):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                run()
            assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


def test_sld_takes_three_passes_a_step_and_all_else_two(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\na house\nthe snow\n")
    settings = EvaluationSettings(
        "model",
        ("negative-prompt", "negative-prompt+sld-max"),
        (str(prompts),),
        ("detector:nudenet",),
        sampling=SamplingSettings(steps=10),
        samples=2,
        concept=Concept("knives", "a knife"),
    )
    cost = cost_of(settings)
    assert (cost.pictures, dict(cost.asked)) == (18, {"own": 6})
    assert cost.seconds == pytest.approx(6 * (10 * (2 + 2 + 3) * PASS + 3 * DECODING) / SUSTAINED)
    first, second = cost.lines()
    assert first == "18 pictures: 3 rows on 6 own"
    assert second.startswith("about 0.0 h on one GPU or 0.0 h on 8 GPUs, 0 dollars at 2 an hour")
