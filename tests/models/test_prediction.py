"""Targets in every parameterisation, and at the ends of noise schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safegen.editing.objective import clean_latent_loss
from safegen.errors import SafegenError
from safegen.models.prediction import (
    add_noise,
    clean_latent,
    flow_shift,
    output_for,
    prediction_of,
    signal_and_noise,
    timesteps_at,
)


def _latents(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unsafe and censored latents, and noise."""
    generator = torch.Generator().manual_seed(seed)
    z_u, z_c, noise = (torch.randn(count, 4, 2, 2, generator=generator) for _ in range(3))
    return z_u, z_c, noise


def test_what_each_family_predicts(pipeline: Any, family: str) -> None:
    kinds = {
        "sd1": "epsilon",
        "sd2": "v_prediction",
        "hunyuan-dit": "v_prediction",
        "sdxl": "epsilon",
        "pixart": "epsilon",
    }
    assert prediction_of(pipeline.scheduler) == kinds.get(family, "flow")


@pytest.mark.parametrize("kind", ["sample", "trigflow"])
def test_other_parameterisations_are_refused(kind: str) -> None:
    from diffusers import DDIMScheduler

    with pytest.raises(SafegenError, match=f"'{kind}' of DDIMScheduler is not supported"):
        prediction_of(DDIMScheduler(prediction_type=kind))


def test_an_oracle_has_no_loss_over_the_whole_schedule(pipeline: Any) -> None:
    scheduler = pipeline.scheduler
    timesteps = timesteps_at(scheduler, torch.linspace(0, 1, 12))
    z_u, z_c, noise = _latents(12)
    a, s = signal_and_noise(scheduler, timesteps)
    kind = prediction_of(scheduler)
    z_t = add_noise(z_u, noise, a, s)
    oracle = output_for(z_c, z_t, a, s, kind)
    assert bool(torch.isfinite(oracle).all())
    loss = clean_latent_loss(oracle, z_t, z_c, a, s, kind, 1.0)
    assert float(loss.max()) < 1e-6
    wrong = clean_latent_loss(oracle + 0.1, z_t, z_c, a, s, kind, 1.0)
    assert float(wrong.median()) > 1e-5


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler"])
@pytest.mark.parametrize("kind", ["v_prediction", "epsilon"])
def test_nothing_is_divided_by_zero_at_zero_terminal_snr(scheduler: str, kind: Any) -> None:
    import diffusers

    noisy = getattr(diffusers, scheduler)(
        beta_schedule="scaled_linear", prediction_type=kind, rescale_betas_zero_snr=True
    )
    timesteps = torch.full((3,), 999)
    a, s = signal_and_noise(noisy, timesteps)
    assert float(a.max()) <= 2.0**-12
    z_u, z_c, noise = _latents(3)
    z_t = add_noise(z_u, noise, a, s)
    oracle = output_for(z_c, z_t, a, s, kind)
    seen = clean_latent(oracle, z_t, a, s, kind)
    assert bool(torch.isfinite(seen).all())
    if kind == "v_prediction":  # v tells the clean latent even where there is none in z_t
        torch.testing.assert_close(seen, z_c, rtol=1e-3, atol=1e-3)
    for output in (oracle, torch.randn_like(oracle)):
        output.requires_grad_(True)
        loss = clean_latent_loss(output, z_t, z_c, a, s, kind, 1.0).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        assert output.grad is not None
        assert bool(torch.isfinite(output.grad).all() & torch.isfinite(loss))
    right = clean_latent_loss(oracle.detach(), z_t, z_c, a, s, kind, 1.0)
    assert float(right.max()) < 1e-3


def test_velocity_at_zero_terminal_snr_agrees_with_diffusers(
    build_family: Callable[..., Any],
) -> None:
    scheduler = build_family("sd2", zero_snr=True).scheduler
    timesteps = torch.tensor([0, 500, 998, 999])
    z_u, _, noise = _latents(4)
    a, s = signal_and_noise(scheduler, timesteps)
    assert float(a[-1]) == 0.0
    z_t = add_noise(z_u, noise, a, s)
    torch.testing.assert_close(z_t, scheduler.add_noise(z_u, noise, timesteps))
    velocity = output_for(z_u, z_t, a, s, "v_prediction")
    expected = scheduler.get_velocity(z_u, noise, timesteps)
    torch.testing.assert_close(velocity, expected, rtol=1e-3, atol=1e-4)


def test_flow_agrees_with_diffusers() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert prediction_of(scheduler) == "flow"
    assert flow_shift(scheduler) == 3.0
    chosen = scheduler.timesteps[[0, 100, 700, 999]]
    z_u, _, noise = _latents(4)
    a, s = signal_and_noise(scheduler, chosen)
    z_t = add_noise(z_u, noise, a, s)
    torch.testing.assert_close(z_t, scheduler.scale_noise(z_u, chosen, noise))
    flow = output_for(z_u, z_t, a, s, "flow")
    torch.testing.assert_close(flow, noise - z_u, rtol=1e-3, atol=1e-3)


@given(shift=st.floats(0.5, 8), place=st.floats(0, 1, exclude_max=True))
def test_flow_timesteps_are_shifted_as_the_samplers_are(shift: float, place: float) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    timestep = int(timesteps_at(scheduler, torch.tensor([place], dtype=torch.float64)))
    assert 1 <= timestep <= 1000
    shifted = shift * place / (1 + (shift - 1) * place)
    assert abs(timestep - 1000 * shifted) <= 1.001


def test_a_dynamic_shift_is_that_of_the_models_own_size() -> None:
    """FLUX at 1024 pixels, which are 4096 tokens."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=[0.9, 0.5, 0.1], mu=scheduler.config.max_shift)
    ours = timesteps_at(scheduler, torch.tensor([0.9, 0.5, 0.1]))
    torch.testing.assert_close(ours.float(), scheduler.timesteps, atol=1.001, rtol=0)


def test_places_reach_both_ends_of_a_schedule(pipeline: Any) -> None:
    ends = timesteps_at(pipeline.scheduler, torch.tensor([0.0, 0.99999]))
    first = int(prediction_of(pipeline.scheduler) == "flow")
    assert ends.tolist() == [first, 999 + first]
