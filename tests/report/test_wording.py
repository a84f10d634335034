"""Figures and names in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.report.wording import code, duration, literal, percent


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"), (1.0, "100 %"), (0.9912, "99.1 %"), (0.99999, "99.9 %"),
        (0.00001, "0.1 %"), (1.0345, "103.5 %"), (-0.25, "−25.0 %"),
    ],
)  # fmt: skip
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text


@given(st.floats(0, 1))
def test_only_all_is_written_as_all_and_none_as_none(share: float) -> None:
    assert (percent(share) == "100 %") == (share == 1)
    assert (percent(share) == "0 %") == (share == 0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "4 s"), (59.6, "1 min 00 s"), (134.2, "2 min 14 s")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_means_something_in_markdown_is_shown_as_it_is() -> None:
    assert literal("a *b*\n# c [d](e) <i>`f`|") == (r"a \*b\* # c \[d\](e) \<i\>\`f\`\|")
    assert code("a `b`\n| c") == r"`a 'b' \| c`"
