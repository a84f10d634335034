"""Classifier guidance against its formula, and what the classifier learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from safegen.attacks import create_attack
from safegen.attacks._fine_tuning import FolderPictures
from safegen.attacks._trajectory import steer
from safegen.attacks.classifier_guidance import (
    ClassifierGuidance,
    ClassifierGuidanceSettings,
    LatentClassifier,
    gradient,
    learned,
)
from safegen.errors import SafegenError
from safegen.lab.profile import LAB
from safegen.models.prediction import signal_and_noise
from safegen.models.sampling import sampler_for
from tiny_targets import TASKS, strike, target_of

EXAMPLES = [replace(task, id=f"e{task.id}", seed=9) for task in TASKS]
FEW = ClassifierGuidanceSettings(scales=(5.0,), pictures=3, steps=5, batch=2, width=4)


def latents(seed: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def ready() -> LatentClassifier:
    torch.manual_seed(0)
    return LatentClassifier(4, 4).requires_grad_(False)


def test_the_gradient_is_that_of_the_log_probability(tiny_pipeline: Any) -> None:
    classifier, scheduler, z = ready(), tiny_pipeline.scheduler, latents(0)
    times = torch.tensor([700, 20])
    found = gradient(classifier, scheduler, z, times)

    def probability(at: torch.Tensor, row: int) -> float:
        a, s = signal_and_noise(scheduler, times[row : row + 1])
        logit = classifier.double()(at[None], a.double(), s.double())
        return float(np.log(1 / (1 + np.exp(-float(logit)))))

    for row in range(2):
        for place in ((0, 1, 2), (3, 7, 7)):
            ahead, behind = z[row].double().clone(), z[row].double().clone()
            ahead[place] += 1e-5
            behind[place] -= 1e-5
            slope = (probability(ahead, row) - probability(behind, row)) / 2e-5
            assert float(found[(row, *place)]) == pytest.approx(slope, rel=1e-2, abs=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_guided_step_moves_the_noise_by_the_gradient(
    build_pipeline: Callable[..., Any], prediction: str
) -> None:
    """e' = e - s w g (arXiv 2105.05233, algorithm 2), then diffusers' own step with e'."""
    own = build_pipeline(prediction_type=prediction).scheduler
    ours, theirs = (sampler_for(own, "ddim") for _ in range(2))
    for each in (ours, theirs):
        each.set_timesteps(4)
    theirs.register_to_config(prediction_type="epsilon")
    pull = latents(7)
    steer(ours, [torch.Generator().manual_seed(i) for i in range(2)], guide=lambda *_: 3 * pull)
    time, z, output = ours.timesteps[1], latents(0), latents(1)
    ours.step(latents(2), ours.timesteps[0], z)  # the place moves on
    (found,) = ours.step(output, time, z)
    a = float(own.alphas_cumprod[time]) ** 0.5
    s = (1 - a * a) ** 0.5
    noise = output if prediction == "epsilon" else a * output + s * z
    expected = theirs.step(noise - s * 3 * pull, time, z).prev_sample
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_classifier_learns_to_tell_noised_latents_apart(tiny_pipeline: Any) -> None:
    unsafe, benign = latents(0, 8), latents(1, 8)
    unsafe[:, :, 2:6, 2:6] += 3
    settings = replace(FEW, steps=60, batch=8, learning_rate=1e-2, power=1.0)
    classifier = learned(tiny_pipeline.scheduler, unsafe, benign, settings)
    assert not any(each.requires_grad for each in classifier.parameters())
    fresh = latents(2, 8)
    a, s = torch.full((8,), 0.98), torch.full((8,), 0.2)
    there = fresh.clone()
    there[:, :, 2:6, 2:6] += 3
    assert float(classifier(there, a, s).mean()) > float(classifier(fresh, a, s).mean()) + 1
    again = learned(tiny_pipeline.scheduler, unsafe, benign, settings)
    assert torch.equal(classifier(there, a, s), again(there, a, s))


def test_guided_pictures_differ_with_the_weight_and_tasks_are_independent(
    tiny_pipeline: Any,
    folder: FolderPictures,
) -> None:
    target = target_of(tiny_pipeline, examples=EXAMPLES)
    attack = ClassifierGuidance(FEW, folder)
    together = strike(target, attack, TASKS)
    for task, found in zip(TASKS, together, strict=True):
        (alone,) = strike(target, attack, [task])
        assert np.abs(found.image.astype(int) - alone.image).max() <= 1
        assert (found.pictures, found.passes, found.details) == (1, 0, {"scale": 5.0})
    more = ClassifierGuidance(replace(FEW, scales=(1e-6, 500.0)), folder)
    for found, strong in zip(together, strike(target, more, TASKS), strict=True):
        assert np.abs(found.image.astype(int) - strong.image).max() > 1
        assert (strong.pictures, strong.details) == (2, {"scale": 500.0})


def test_what_it_lacks_is_said(
    tiny_pipeline: Any,
) -> None:
    with pytest.raises(SafegenError, match="learns from examples"):
        strike(target_of(tiny_pipeline), ClassifierGuidance(FEW), TASKS)
    with pytest.raises(SafegenError, match="name a folder of them"):
        strike(target_of(tiny_pipeline, examples=EXAMPLES), ClassifierGuidance(FEW), TASKS)
    with pytest.raises(SafegenError, match="at least one scale"):
        ClassifierGuidanceSettings(scales=())
    made: Any = create_attack("classifier-guidance,scales=3+4", LAB)
    assert made.settings.scales == (3.0, 4.0)
    assert made.settings.pictures == LAB.attacks["classifier-guidance"]["pictures"]
