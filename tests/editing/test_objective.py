from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safegen.editing.objective import (
    bounded_weight,
    clean_latent_loss,
    output_loss,
    paper_target,
)
from safegen.errors import SafegenError
from safegen.models.prediction import Prediction, add_noise, clean_latent, output_for

KINDS: list[Prediction] = ["epsilon", "v_prediction", "flow"]


def _case(kind: Prediction, seed: int, level: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z_u, z_c, noise = (
        torch.randn(3, 4, 2, 2, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    s = torch.full((3,), level, dtype=torch.float64)
    a = 1 - s if kind == "flow" else (1 - s**2).sqrt()
    return {"z_u": z_u, "z_c": z_c, "noise": noise, "a": a, "s": s,
            "z_t": add_noise(z_u, noise, a, s)}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1000), level=st.floats(0.05, 0.95))
def test_a_perfect_prediction_has_no_loss(kind: Prediction, seed: int, level: float) -> None:
    c = _case(kind, seed, level)
    oracle = output_for(c["z_c"], c["z_t"], c["a"], c["s"], kind)
    loss = clean_latent_loss(oracle, c["z_t"], c["z_c"], c["a"], c["s"], kind, gamma=5.0)
    assert loss.abs().max() < 1e-18


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1000), level=st.floats(0.05, 0.95))
def test_output_and_clean_latent_are_inverse(kind: Prediction, seed: int, level: float) -> None:
    c = _case(kind, seed, level)
    output = output_for(c["z_c"], c["z_t"], c["a"], c["s"], kind)
    torch.testing.assert_close(clean_latent(output, c["z_t"], c["a"], c["s"], kind), c["z_c"])


def test_exact_epsilon_target_is_noise_plus_scaled_difference() -> None:
    c = _case("epsilon", 0, 0.6)
    target = output_for(c["z_c"], c["z_t"], c["a"], c["s"], "epsilon")
    scale = (c["a"] / c["s"]).view(-1, 1, 1, 1)
    torch.testing.assert_close(target, c["noise"] + scale * (c["z_u"] - c["z_c"]))


def test_all_parameterisations_have_the_same_loss() -> None:
    c = _case("epsilon", 1, 0.6)
    wrong = torch.randn_like(c["z_c"])
    losses = [
        clean_latent_loss(
            output_for(wrong, c["z_t"], c["a"], c["s"], kind),
            c["z_t"], c["z_c"], c["a"], c["s"], kind, gamma=5.0,
        )
        for kind in ("epsilon", "v_prediction")
    ]  # fmt: skip
    torch.testing.assert_close(losses[0], losses[1])


def test_loss_agrees_with_the_formula_in_numpy() -> None:
    c = _case("epsilon", 2, 0.3)
    output = torch.randn_like(c["z_t"])
    a, s = float(c["a"][0]), float(c["s"][0])
    seen = (c["z_t"].numpy() - s * output.numpy()) / a
    expected = min(a / s, 5.0) * ((seen - c["z_c"].numpy()) ** 2).mean(axis=(1, 2, 3))
    loss = clean_latent_loss(output, c["z_t"], c["z_c"], c["a"], c["s"], "epsilon", 5.0)
    np.testing.assert_allclose(loss.numpy(), expected)


@given(level=st.floats(1e-3, 1 - 1e-3))
def test_weight_is_bounded(level: float) -> None:
    s = torch.tensor([level], dtype=torch.float64)
    weight = bounded_weight((1 - s**2).sqrt(), s, gamma=5.0)
    assert 0 < float(weight) <= 5.0


def test_paper_targets() -> None:
    c = _case("epsilon", 3, 0.6)
    epsilon = paper_target(c["z_u"], c["z_c"], c["noise"], c["a"], c["s"], "epsilon")
    torch.testing.assert_close(epsilon, c["noise"] + c["z_u"] - c["z_c"])
    velocity = paper_target(c["z_u"], c["z_c"], c["noise"], c["a"], c["s"], "v_prediction")
    expected = 0.8 * c["noise"] - 0.6 * (c["z_u"] - c["z_c"])
    torch.testing.assert_close(velocity, expected)
    assert float(output_loss(epsilon, epsilon).max()) == 0.0
    with pytest.raises(SafegenError, match="not defined for flow"):
        paper_target(c["z_u"], c["z_c"], c["noise"], c["a"], c["s"], "flow")


def test_velocity_agrees_with_diffusers() -> None:
    from diffusers import DDPMScheduler

    from safegen.models.prediction import signal_and_noise

    scheduler = DDPMScheduler(beta_schedule="scaled_linear", prediction_type="v_prediction")
    z_0, noise = torch.randn(5, 4, 2, 2), torch.randn(5, 4, 2, 2)
    timesteps = torch.tensor([0, 10, 300, 700, 999])
    a, s = signal_and_noise(scheduler, timesteps)
    z_t = add_noise(z_0, noise, a, s)
    torch.testing.assert_close(z_t, scheduler.add_noise(z_0, noise, timesteps))
    velocity = output_for(z_0, z_t, a, s, "v_prediction")
    expected = scheduler.get_velocity(z_0, noise, timesteps)
    torch.testing.assert_close(velocity, expected, rtol=1e-3, atol=1e-4)
