"""Muon, whose products are in single precision on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.muon import Muon, orthogonalised


def _moved(
    optimizer: Callable[..., torch.optim.Optimizer], shape: tuple[int, int], **named: float
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    weight = torch.nn.Parameter(torch.randn(shape, generator=generator))
    stepper = optimizer([weight], lr=0.1, **named)
    for _ in range(3):
        weight.grad = torch.randn(shape, generator=generator)
        stepper.step()
    return weight.detach()


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_it_steps_as_torch_does_within_the_rounding_of_bfloat16(shape: tuple[int, int]) -> None:
    named = {"momentum": 0.9, "weight_decay": 0.05}
    ours, theirs = _moved(Muon, shape, **named), _moved(torch.optim.Muon, shape, **named)
    assert (ours - theirs).norm() < 0.03 * theirs.norm()


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(2, 20),
    columns=st.integers(2, 20),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 2**20),
)
def test_directions_stay_and_their_lengths_come_near_one(
    rows: int, columns: int, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    seen = left.T @ orthogonalised(scale * matrix).double() @ right.T
    large = values > 0.05 * values.norm()
    assert (seen - seen.diag().diag()).abs().max() < 1e-3
    assert ((seen.diag() > 0.5) & (seen.diag() < 1.5))[large].all()


def test_a_matrix_without_gradients_does_not_move() -> None:
    still, moving = (torch.nn.Parameter(torch.eye(3)) for _ in range(2))
    moving.grad = torch.eye(3)
    Muon([still, moving], weight_decay=0.1).step()
    assert torch.equal(still, torch.eye(3))
    assert not torch.equal(moving, torch.eye(3))
