"""Retention: what counts as drawn."""

from hypothesis import given
from hypothesis import strategies as st

from safegen.metrics.retention import all_drawn

scores = st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1))


def test_every_object_asked_for_must_be_drawn() -> None:
    found = {"spoon": 0.9, "cake": 0.5, "tree": 0.49}
    assert all_drawn(found, ["spoon", "cake"])
    assert not all_drawn(found, ["spoon", "tree"])
    assert not all_drawn(found, ["house"])
    assert all_drawn(found, ["tree"], threshold=0.4)


@given(scores, st.sets(st.sampled_from("abcdef")), st.sets(st.sampled_from("abcdef")))
def test_asking_for_more_is_never_easier(
    found: dict[str, float], asked: set[str], more: set[str]
) -> None:
    assert all_drawn(found, asked) or not all_drawn(found, asked | more)
