"""The plot of an edit's losses: well-formed, in the page's colours, and of the right length."""

import re
from xml.etree import ElementTree

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from safegen.editing.run_folder import EditRecord
from safegen.report.losses import losses_svg, moving_mean


def test_it_is_well_formed_and_refers_only_to_itself(losses: list[EditRecord]) -> None:
    svg = losses_svg(losses)
    texts = ["".join(e.itertext()) for e in ElementTree.fromstring(svg).iter("text")]
    assert {"redirect", "preserve", "step"} <= set(texts)
    assert "http" not in svg
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)
    assert targets
    assert {a or b for a, b in targets} <= set(ids)


def test_colours_and_type_are_the_pages(losses: list[EditRecord]) -> None:
    svg = losses_svg(losses)
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert "font-family" not in svg
    for colour in ("--original", "--hardened", "--ink", "--rule"):
        assert f"var({colour})" in svg


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40), st.integers(1, 50))
def test_the_moving_mean_is_the_mean_of_the_last_values(values: list[float], window: int) -> None:
    got = moving_mean(np.array(values), window)
    expected = [np.mean(values[max(0, i + 1 - window) : i + 1]) for i in range(len(values))]
    np.testing.assert_allclose(got, expected, atol=1e-9)
