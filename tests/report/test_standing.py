"""Which of the defenses in a table are safegen's."""

from __future__ import annotations

import pytest

from safegen.report.standing import Kind, kind_of


@pytest.mark.parametrize(
    ("defense", "kind"),
    [
        ("none", "original"),
        ("safegen", "safegen"),
        ("safegen+sld-max", "safegen"),
        ("safegen-robust", "safegen"),
        ("sld-max", "baseline"),
        ("safety-filter", "baseline"),
    ],
)
def test_a_variant_of_safegen_is_no_baseline(defense: str, kind: Kind) -> None:
    assert kind_of(defense) == kind
