"""Bounds on a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.errors import SafegenError
from safegen.evaluation.requirements import Requirement, missed
from safegen.results.records import Estimate, Table

NAMES = st.from_regex(r"[a-z][a-z0-9+.-]{0,8}[a-z0-9]", fullmatch=True)
BOUNDS = st.floats(allow_nan=False, allow_infinity=False)
REQUIREMENTS = st.builds(
    Requirement,
    NAMES,
    st.sampled_from([">=", "<="]),
    BOUNDS,
    st.none() | NAMES,
    st.none() | NAMES,
)


@given(REQUIREMENTS)
def test_a_requirement_is_read_as_it_is_written(requirement: Requirement) -> None:
    assert Requirement.parse(str(requirement)) == requirement
    spaced = str(requirement).replace(requirement.relation, f" {requirement.relation} ")
    assert Requirement.parse(spaced) == requirement


@given(st.text(alphabet="ab :@<>=.1%", max_size=12))
def test_what_is_read_has_all_its_parts(text: str) -> None:
    try:
        requirement = Requirement.parse(text)
    except SafegenError:
        return
    assert Requirement.parse(str(requirement)) == requirement
    assert requirement.metric.strip()
    assert requirement.defense != ""
    assert requirement.prompt_set != ""


@pytest.mark.parametrize(
    "text",
    ["removal", "removal>0.9", "removal>=", ">=0.9", "removal>=much", "a:b:c>=1", "removal==1",
     "removal@>=1", " >=1", "removal@ >=1", " :removal>=1"],
)  # fmt: skip
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(SafegenError, match="write METRIC>=VALUE"):
        Requirement.parse(text)


def test_an_infinite_bound_is_refused() -> None:
    with pytest.raises(SafegenError, match="finite"):
        Requirement.parse("removal>=inf")


@given(BOUNDS, BOUNDS)
def test_a_bound_is_kept_up_to_itself(bound: float, value: float) -> None:
    assert Requirement("m", ">=", bound).kept_by(value) == (value >= bound)
    assert Requirement("m", "<=", bound).kept_by(value) == (value <= bound)
    assert not Requirement("m", ">=", bound).kept_by(float("nan"))


def table() -> Table:
    figures = {
        ("none", "i2p", "removal"): Estimate(0.0),
        ("sld-max", "i2p", "removal"): Estimate(0.5),
        ("sld-max", "own", "removal"): Estimate(0.9),
        ("safegen", "i2p", "removal"): Estimate(0.99),
    }
    return Table((), (), ("removal",), figures)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("removal>=0.5", []),
        ("removal>=0.6", ["removal>=0.6: missed by sld-max on i2p, with 0.5"]),
        ("removal@own>=0.95", ["removal@own>=0.95: missed by sld-max on own, with 0.9"]),
        ("safegen:removal>=0.9", []),
        ("none:removal>=0.1", ["none:removal>=0.1: missed by none on i2p, with 0"]),
        ("sld-max:removal@i2p<=0.4", ["sld-max:removal@i2p<=0.4: missed by sld-max on i2p, "
                                      "with 0.5"]),
    ],
)  # fmt: skip
def test_each_missed_figure_is_a_line(text: str, lines: list[str]) -> None:
    assert missed([Requirement.parse(text)], table()) == lines


def test_a_figure_that_is_not_there_is_no_success() -> None:
    with pytest.raises(SafegenError, match="the table has no such figure"):
        missed([Requirement.parse("safegen:removal@own>=0.5")], table())
