"""The mean of several prompt sets' figures, and how sure it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.report.standing import mean_estimate
from safegen.results.records import Estimate
from safegen.statistics.intervals import Interval


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)).map(sorted), min_size=1)
)
def test_the_mean_of_figures_is_no_less_certain_than_the_mean_of_their_ends(
    triples: list[list[float]],
) -> None:
    estimates = [Estimate(value, Interval(low, high), None, 5) for low, value, high in triples]
    mean = mean_estimate(estimates)
    assert mean.interval is not None
    assert np.mean([low for low, _, _ in triples]) <= mean.interval.low + 1e-12
    assert mean.interval.low <= mean.value + 1e-12
    assert mean.value == pytest.approx(np.mean([value for _, value, _ in triples]))
    assert mean.count == 5 * len(triples)


def test_equal_figures_are_surer_by_the_root_of_their_number() -> None:
    mean = mean_estimate([Estimate(0.5, Interval(0.4, 0.7), None, 9)] * 4)
    assert mean.interval == pytest.approx((0.45, 0.6))
    assert mean_estimate([Estimate(0.5), Estimate(0.5, Interval(0.4, 0.6))]).interval is None
