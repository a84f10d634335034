"""When an edit stops, and which of its points is the result."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from safegen.editing.course import PATIENCE, Course
from safegen.editing.probes import TARGETS, Measure, Probed, Target
from safegen.errors import SafegenError


def _follow(*probes: tuple[int, int], left: Sequence[float] = ()) -> Course:
    """Follow probes with (unsafe, kept) of 20 pictures each, and with the redirect ``left``."""
    course = Course(TARGETS)
    for step, (unsafe, kept) in enumerate(probes):
        counts: dict[Measure, tuple[int, int]] = {
            "removal": (20 - unsafe, 20), "retention": (kept, 20)
        }  # fmt: skip
        redirect = {"0.2": left[step] + 0.1, "0.8": left[step] - 0.1} if left else {}
        found = Probed(step, counts, redirect)
        course.note(found, {"w": torch.tensor(float(step))})
    return course


def test_it_stops_when_all_targets_are_reached() -> None:
    assert not _follow((5, 20), (1, 20)).finished
    assert not _follow((0, 18)).reached
    course = _follow((5, 20), (0, 20))
    assert course.reached
    assert course.finished


def test_the_result_is_the_best_point() -> None:
    course = _follow((10, 20), (2, 19), (1, 10), (3, 19))
    assert course.best is not None
    assert float(course.best["w"]) == 1


def test_of_points_that_hold_the_targets_the_least_redirect_left_is_best() -> None:
    course = _follow((0, 20), (0, 19), (0, 20), left=(0.5, 0.3, 0.4))
    assert course.best is not None
    assert float(course.best["w"]) == 1  # 19 of 20 is 97 % within a standard error
    course = _follow((0, 20), (0, 18), left=(0.5, 0.3))
    assert course.best is not None
    assert float(course.best["w"]) == 0
    course = _follow((3, 20), (2, 20), left=(0.3, 0.5))
    assert course.best is not None
    assert float(course.best["w"]) == 1


def test_it_goes_on_while_the_redirect_left_falls() -> None:
    assert not _follow((0, 20), left=(0.5,)).finished
    assert not _follow((0, 20), (0, 20), left=(0.5, 0.4)).finished
    assert _follow((0, 20), (0, 20), left=(0.5, 0.49)).finished
    assert _follow((0, 20), (1, 20), left=(0.5, 0.3)).finished  # the second does not hold
    assert not _follow((1, 20), (0, 20), left=(0.5, 0.4)).finished


def test_a_target_holds_within_a_standard_error() -> None:
    target = Target("near-miss-retention", 0.92)
    assert Probed(1, {"near-miss-retention": (43, 48)}).holds(target)
    assert not Probed(1, {"near-miss-retention": (42, 48)}).holds(target)
    assert Probed(1, {}).holds(target)
    assert not Probed(1, {"removal": (61, 62)}).holds(Target("removal", 1.0))


def test_each_missing_picture_counts_the_same() -> None:
    target = Target("removal", 1.0)
    assert Probed(1, {"removal": (58, 60)}).missing(target) == 2
    assert Probed(1, {"removal": (23, 24)}).missing(target) == 1
    assert Probed(1, {}).missing(target) == 0


def test_it_gives_up_when_nothing_is_gained() -> None:
    assert not _follow((4, 20), *[(5, 20)] * (PATIENCE - 1)).finished
    course = _follow((4, 20), *[(5, 20)] * PATIENCE)
    assert course.finished
    assert not course.reached


def test_its_state_is_restored() -> None:
    course, other = _follow((10, 20), (2, 19), (1, 10)), Course(TARGETS)
    other.load_state_dict(course.state_dict())
    assert other.state_dict() == course.state_dict()
    assert other.falls_short("removal")
    assert other.falls_short("retention")
    assert not other.falls_short("near-miss-retention")  # of which there was none


def test_targets_are_parsed() -> None:
    assert str(Target.parse(" removal >= 0.99")) == "removal>=0.99"
    assert Target.parse("near-miss-retention>=0.9") == Target("near-miss-retention", 0.9)
    assert Target.parse("retention>=1") == Target("retention", 1.0)
    for wrong in ("removal>0.9", "removal>=1.5", "beauty>=0.5", "removal>=x", "removal>=nan"):
        with pytest.raises(
            SafegenError, match="is no target; give removal, retention, near-miss-retention"
        ):
            Target.parse(wrong)
