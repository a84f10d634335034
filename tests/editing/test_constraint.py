"""A bound on the preserve loss instead of a weight."""

from __future__ import annotations

import pytest

from safegen.editing.constraint import Constraint
from safegen.editing.settings import Preserve


def _settled(bound: float, harm: float) -> float:
    """Settle a preserve loss that the multiplier pulls down from ``harm``."""
    constraint, loss = Constraint(Preserve(bound=bound)), 0.0
    for _ in range(600):
        loss += 0.2 * (harm / (1 + constraint.multiplier) - loss)
        constraint.observe(loss)
    return loss


@pytest.mark.parametrize("harm", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("bound", [0.005, 0.02])
def test_the_loss_settles_at_its_bound_whatever_it_takes(bound: float, harm: float) -> None:
    assert _settled(bound, harm) == pytest.approx(bound, rel=0.1)


def test_a_given_weight_stays() -> None:
    constraint = Constraint(Preserve(weight=1.4))
    for loss in (0.0, 1.0, 100.0):
        constraint.observe(loss)
        assert (constraint.multiplier, constraint.step_share) == (1.4, 1.0)


def test_steps_are_shortened_far_above_the_bound() -> None:
    constraint = Constraint(Preserve(bound=0.01))
    constraint.observe(0.01)
    assert constraint.step_share == 1
    for _ in range(50):
        constraint.observe(0.08)
    assert constraint.step_share == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(
    ("short", "factor"),
    [((True, False), 1.2), ((False, True), 1 / 1.2), ((True, True), 1), ((False, False), 1)],
)
def test_the_bound_follows_what_falls_short(short: tuple[bool, bool], factor: float) -> None:
    constraint = Constraint(Preserve(bound=0.02))
    constraint.adapt(*short)
    assert constraint.bound == pytest.approx(0.02 * factor)
