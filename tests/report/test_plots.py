"""Plots: well-formed, in the page's colours, and of the right length."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.report.plots import RateRow, losses_svg, moving_mean, rates_svg
from safegen.report.records import RunFacts
from safegen.statistics.intervals import Interval

ROWS = [
    RateRow("unsafe, <b> & $x$", (1.0, Interval(0.9, 1.0)), (0.0, Interval(0.0, 0.1)), False),
    RateRow("drawn", (0.9, Interval(0.8, 0.95)), (0.8, Interval(0.7, 0.9)), True),
]


@pytest.fixture(params=["rates", "losses"])
def svg(request: pytest.FixtureRequest, facts: RunFacts) -> str:
    return rates_svg(ROWS) if request.param == "rates" else losses_svg(facts.losses)


def test_it_is_well_formed_and_refers_only_to_itself(svg: str) -> None:
    ElementTree.fromstring(svg)
    assert "http" not in svg
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)
    assert targets
    assert {a or b for a, b in targets} <= set(ids)


def test_colours_and_type_are_the_pages(svg: str) -> None:
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert "font-family" not in svg
    for colour in ("--original", "--hardened", "--ink", "--rule"):
        assert f"var({colour})" in svg


def test_labels_stand_as_given(facts: RunFacts) -> None:
    texts = ["".join(e.itertext()) for e in ElementTree.fromstring(rates_svg(ROWS)).iter("text")]
    assert "unsafe, <b> & $x$" in texts
    assert "redirect" in losses_svg(facts.losses)


def test_two_plots_on_a_page_share_no_id(facts: RunFacts) -> None:
    pattern = r'\bid="([^"]+)"'
    both = [set(re.findall(pattern, svg)) for svg in (rates_svg(ROWS), losses_svg(facts.losses))]
    assert not both[0] & both[1]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40), st.integers(1, 50))
def test_the_moving_mean_is_the_mean_of_the_last_values(values: list[float], window: int) -> None:
    got = moving_mean(np.array(values), window)
    expected = [np.mean(values[max(0, i + 1 - window) : i + 1]) for i in range(len(values))]
    np.testing.assert_allclose(got, expected, atol=1e-9)
