"""What moves the weights, and how far."""

from __future__ import annotations

import pytest
import torch

from safegen.editing.optimizers import (
    MUON_RATE,
    Optimizers,
    optimizers_for,
    predicted_moment_bytes,
    set_rate,
)
from safegen.editing.settings import Optimisation

MUON = Optimisation(optimizer="muon", learning_rate=1e-3)
ADAMW = Optimisation(optimizer="adamw", learning_rate=1e-3)


def _parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((8, 8), (8,), (6, 6))
    made = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    for parameter in made:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return made


def test_every_direction_of_a_matrix_moves_as_far_under_muon() -> None:
    matrix, vector, _ = parameters = _parameters()
    before = matrix.detach().clone(), vector.detach().clone()
    for optimizer in optimizers_for(parameters, MUON):
        set_rate(optimizer, 1e-3)
        optimizer.step()
    lengths = torch.linalg.svdvals(matrix.detach() - before[0])
    assert lengths.min() > 0.3 * lengths.max()
    assert float(lengths.max()) == pytest.approx(MUON_RATE * 1e-3, rel=0.3)
    moved = (vector.detach() - before[1]).abs()
    assert moved.max() < 1.2e-3


@pytest.mark.parametrize("settings", [MUON, ADAMW], ids=["muon", "adamw"])
def test_moments_are_foretold(settings: Optimisation) -> None:
    parameters = _parameters()
    optimizers = Optimizers(parameters, settings)
    told = predicted_moment_bytes(parameters, settings)
    optimizers.step(1e-3)
    assert optimizers.moment_bytes() == told


@pytest.mark.parametrize("settings", [MUON, ADAMW], ids=["muon", "adamw"])
def test_scaled_gradients_are_unscaled_once(settings: Optimisation) -> None:
    """Twice would leave AdamW gradients that its epsilon drowns."""
    moved = []
    for scaled in (False, True):
        parameters = _parameters()
        before = [parameter.detach().clone() for parameter in parameters]
        optimizers = Optimizers(parameters, settings, scaled)
        for parameter in parameters:
            parameter.grad = None
        for _ in range(2):
            optimizers.backward(1e-3 * torch.cat([p.flatten() for p in parameters]).square().sum())
            optimizers.step(1e-3)
        moved.append([p.detach() - old for p, old in zip(parameters, before, strict=True)])
    assert all(change.abs().max() > 1e-4 for change in moved[0])
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-3, atol=1e-6)


def test_muon_keeps_less_than_adamw() -> None:
    parameters = _parameters()
    muon, adamw = (predicted_moment_bytes(parameters, each) for each in (MUON, ADAMW))
    assert adamw - muon == parameters[0].nbytes + parameters[2].nbytes


def test_either_kind_of_weight_may_be_all_there_is() -> None:
    matrix, vector, _ = _parameters()
    kinds = [[type(o) for o in optimizers_for([p], MUON)] for p in (matrix, vector)]
    assert kinds == [[torch.optim.Muon], [torch.optim.AdamW]]
