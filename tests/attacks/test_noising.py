"""Noise along the trajectory: its steps against diffusers' own, and the search over strengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from safegen.attacks import Task, create_attack
from safegen.attacks._draws import task_generator
from safegen.attacks._trajectory import deviation, steer
from safegen.attacks.noising import Noising, NoisingSettings
from safegen.attacks.target import Target
from safegen.detectors import Detection, DetectorIdentity
from safegen.errors import SafegenError
from safegen.lab.pictures import SAMPLING
from safegen.lab.prompts import lab_prompts
from safegen.models.sampling import sampler_for
from tiny_targets import TASKS, strike, target_of

Build = Callable[..., Any]


def noise(seed: int) -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_its_steps_are_those_of_diffusers_ddim(
    build_pipeline: Build, prediction: str, eta: float
) -> None:
    pipeline = build_pipeline(prediction_type=prediction)
    ours, theirs = (sampler_for(pipeline.scheduler, "ddim") for _ in range(2))
    for each in (ours, theirs):
        each.set_timesteps(4)
    again = [torch.Generator().manual_seed(i) for i in range(2)]
    steer(ours, [torch.Generator().manual_seed(i) for i in range(2)], eta)
    z = noise(0)
    for number, time in enumerate(theirs.timesteps):
        output = noise(10 + number)
        fresh = torch.stack([torch.randn(4, 8, 8, generator=each) for each in again])
        (found,) = ours.step(output, time, z, return_dict=False)
        z = theirs.step(output, time, z, eta=eta, variance_noise=fresh).prev_sample
        torch.testing.assert_close(found, z, atol=1e-4, rtol=1e-4)


def test_more_noise_than_all_is_taken_as_the_formula_says(tiny_pipeline: Any) -> None:
    scheduler: DDIMScheduler = sampler_for(tiny_pipeline.scheduler, "ddim")
    scheduler.set_timesteps(4)
    steer(scheduler, [torch.Generator().manual_seed(i) for i in range(2)], 1.5, 1.04)
    time, before = scheduler.timesteps[:2]
    z, e = noise(0).double(), noise(1).double()
    (found,) = scheduler.step(e.float(), time, z.float())
    old, new = (float(scheduler.alphas_cumprod[each]) for each in (time, before))
    sigma = 1.5 * np.sqrt((1 - new) / (1 - old)) * np.sqrt(1 - old / new)
    rest = np.sqrt(max(0.0, 1 - new - sigma**2))
    fresh = [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    clean = (z - np.sqrt(1 - old) * e) / np.sqrt(old)
    expected = np.sqrt(new) * clean + rest * e + 1.04 * sigma * torch.stack(fresh)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


def test_on_a_flows_path_it_is_eulers_step_or_noised_anew() -> None:
    scheduler: Any = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(3)
    plain: Any = FlowMatchEulerDiscreteScheduler()
    plain.set_timesteps(3)
    steer(scheduler, [torch.Generator().manual_seed(i) for i in range(2)])
    z = noise(0)
    for number, time in enumerate(plain.timesteps):
        (found,) = scheduler.step(noise(number), time, z)
        z = plain.step(noise(number), time, z).prev_sample
        torch.testing.assert_close(found, z, atol=1e-5, rtol=1e-5)
    a, s, a_next, s_next = (torch.tensor([each]) for each in (0.2, 0.8, 0.5, 0.5))
    left = 0.8**2 - (0.2 * 0.5 / 0.5) ** 2  # what noise the earlier latent lacks
    assert float(deviation(a, s, a_next, s_next)) == pytest.approx(0.5 / 0.8 * left**0.5)


class Third:
    """Finds something in each third picture that it is shown."""

    identity = DetectorIdentity("third", "1", "", 0.5)

    def __init__(self) -> None:
        self.count = 0

    def detect(self, images: Any) -> list[list[Detection]]:
        found = []
        for _ in images:
            self.count += 1
            found.append([] if self.count % 3 else [Detection("third", 0.9)])
        return found


def test_strengths_are_tried_until_the_judge_finds_something(
    tiny_pipeline: Any,
) -> None:
    settings = NoisingSettings(etas=(1.0, 1.5), scales=(1.0, 1.1))
    target = target_of(tiny_pipeline, detector=Third())
    (found,) = strike(target, Noising(settings), TASKS[:1])
    assert (found.pictures, found.passes, found.score) == (3, 0, 0.9)
    assert found.details == {"eta": 1.5, "scale": 1.0}


def test_tasks_do_not_depend_on_each_other(
    tiny_pipeline: Any,
) -> None:
    attack = Noising(NoisingSettings(etas=(1.0,), scales=(1.0,)))
    target = target_of(tiny_pipeline)
    mixed = [TASKS[0], replace(TASKS[1], guidance=5.0)]
    for task, found in zip(mixed, strike(target, attack, mixed), strict=True):
        (alone,) = strike(target, attack, [task])
        assert np.abs(found.image.astype(int) - alone.image).max() <= 1
    tasks = [TASKS[0], replace(TASKS[0], id="other")]
    one, other = (each.image.astype(int) for each in strike(target, attack, tasks))
    assert np.abs(one - other).max() > 1


def test_the_first_noise_is_the_tasks_own(
    tiny_pipeline: Any,
) -> None:
    attack = Noising(NoisingSettings(etas=(0.0,), scales=(1.0,)))
    (found,) = strike(target_of(tiny_pipeline), attack, TASKS[:1])
    begun = torch.randn(1, 4, 8, 8, generator=task_generator(TASKS[0], 0))
    tiny_pipeline.scheduler = sampler_for(tiny_pipeline.scheduler, "ddim")
    expected = tiny_pipeline(
        TASKS[0].text, num_inference_steps=4, guidance_scale=3.0, latents=begun, output_type="np"
    ).images[0]
    assert np.abs(found.image - 255.0 * expected).max() <= 1


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SafegenError, match="at least one eta and one scale"):
        NoisingSettings(etas=())
    with pytest.raises(SafegenError, match="noising: scales must be"):
        NoisingSettings(scales=(0.0,))
    assert create_attack("noising,etas=1+2,scales=1") == Noising(
        NoisingSettings((1.0, 2.0), (1.0,))
    )
    identity = create_attack("noising").identity
    assert (identity.name, identity.side, identity.access) == ("noising", "image", "black box")


def test_the_labs_model_still_draws_the_weapon(
    lab: Target,
) -> None:
    (prompt,) = lab_prompts("explicit", "validation", 1)
    task = Task(prompt.id, prompt.text, prompt.seed, SAMPLING.guidance_scale)
    (found,) = strike(lab, create_attack("noising,etas=1,scales=1"), [task])
    assert found.score > 0
