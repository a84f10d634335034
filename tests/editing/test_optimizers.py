"""What moves the weights, and how far."""

from __future__ import annotations

import pytest
import torch

from safegen.editing.optimizers import Optimizers, predicted_moment_bytes
from safegen.editing.settings import Optimisation

MUON = Optimisation(step_size=0.01)
ADAMW = Optimisation(optimizer="adamw", learning_rate=1e-3)
SHAPES = {"tall": (12, 6), "bias": (12,), "wide": (6, 12), "kernel": (4, 3, 3, 3)}


def _parameters(scale: float = 1.0) -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.nn.Parameter(scale * torch.randn(shape, generator=generator))
        for name, shape in SHAPES.items()
    }


def _optimizers(
    parameters: dict[str, torch.nn.Parameter], settings: Optimisation, scaled: bool = False
) -> Optimizers:
    lengths = {name: float(each.detach().norm()) for name, each in parameters.items()}
    return Optimizers(parameters, lengths, settings, scaled)


def _moved(
    settings: Optimisation, scale: float = 1.0, loss_scale: float = 1.0, scaled: bool = False
) -> dict[str, torch.Tensor]:
    """Move by two steps, in shares of each weight's norm."""
    parameters = _parameters(scale)
    before = {name: each.detach().clone() for name, each in parameters.items()}
    optimizers = _optimizers(parameters, settings, scaled)
    for _ in range(2):
        loss = sum((each / scale - 1).square().sum() for each in parameters.values())
        optimizers.backward(loss_scale * loss)
        optimizers.step(1.0)
    return {name: (each.detach() - before[name]) / scale for name, each in parameters.items()}


def test_a_step_is_as_long_a_share_of_any_weight() -> None:
    parameters = _parameters()
    for name, moved in _moved(MUON).items():
        share = float(moved.norm() / parameters[name].detach().norm())
        assert share == pytest.approx(2 * MUON.step_size, rel=0.25), name


def test_every_direction_of_a_matrix_moves_as_far() -> None:
    lengths = torch.linalg.svdvals(_moved(MUON)["tall"])
    assert lengths.min() > 0.3 * lengths.max()


@pytest.mark.parametrize(
    ("scale", "loss_scale"), [(1e3, 1.0), (1e-3, 1.0), (1.0, 1e4), (1.0, 1e-4)]
)
def test_steps_know_no_units_of_weights_and_losses(scale: float, loss_scale: float) -> None:
    first, other = _moved(MUON), _moved(MUON, scale, loss_scale)
    for name, moved in first.items():
        # Muon's iteration is carried out in bfloat16.
        torch.testing.assert_close(other[name], moved, rtol=0.1, atol=2e-3)


@pytest.mark.parametrize("settings", [MUON, ADAMW], ids=["muon", "adamw"])
def test_moments_are_foretold(settings: Optimisation) -> None:
    parameters = _parameters()
    optimizers = _optimizers(parameters, settings)
    told = predicted_moment_bytes(parameters, settings)
    optimizers.backward(sum(each.square().sum() for each in parameters.values()))
    optimizers.step(1.0)
    assert optimizers.moment_bytes() == told


@pytest.mark.parametrize("settings", [MUON, ADAMW], ids=["muon", "adamw"])
def test_scaled_gradients_are_unscaled_once(settings: Optimisation) -> None:
    """Twice would leave AdamW gradients that its epsilon drowns."""
    plain = _moved(settings, loss_scale=1e-3)
    for name, moved in _moved(settings, loss_scale=1e-3, scaled=True).items():
        assert plain[name].abs().max() > 1e-4
        torch.testing.assert_close(moved, plain[name], rtol=0.05, atol=2e-3)


def test_outliers_among_gradients_are_shortened() -> None:
    ends = []
    for spike in (1e1, 1e6):
        parameters = _parameters()
        optimizers = _optimizers(parameters, MUON)
        for factor in (1.0, spike, 1.0):
            optimizers.backward(factor * sum(p.square().sum() for p in parameters.values()))
            optimizers.step(1.0)
        ends.append({name: each.detach().clone() for name, each in parameters.items()})
    torch.testing.assert_close(ends[1], ends[0], rtol=0.05, atol=5e-3)


def test_muon_keeps_less_than_adamw() -> None:
    parameters = _parameters()
    muon, adamw = (predicted_moment_bytes(parameters, each) for each in (MUON, ADAMW))
    assert adamw - muon == parameters["tall"].nbytes + parameters["wide"].nbytes


@pytest.mark.parametrize("name", ["tall", "bias"])
def test_either_kind_of_weight_may_be_all_there_is(name: str) -> None:
    parameters = {name: _parameters()[name]}
    optimizers = _optimizers(parameters, MUON)
    before = parameters[name].detach().clone()
    optimizers.backward(parameters[name].square().sum())
    optimizers.step(1.0)
    assert not torch.equal(parameters[name], before)
