"""What moves the weights, and how far."""

from __future__ import annotations

import pytest
import torch

from safegen.editing.optimizers import (
    MUON_RATE,
    moment_bytes,
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
    optimizers = optimizers_for(parameters, settings)
    told = predicted_moment_bytes(parameters, settings)
    for optimizer in optimizers:
        optimizer.step()
    assert moment_bytes(optimizers) == told


def test_muon_keeps_less_than_adamw() -> None:
    parameters = _parameters()
    muon, adamw = (predicted_moment_bytes(parameters, each) for each in (MUON, ADAMW))
    assert adamw - muon == parameters[0].nbytes + parameters[2].nbytes


def test_either_kind_of_weight_may_be_all_there_is() -> None:
    matrix, vector, _ = _parameters()
    kinds = [[type(o) for o in optimizers_for([p], MUON)] for p in (matrix, vector)]
    assert kinds == [[torch.optim.Muon], [torch.optim.AdamW]]
