"""Tiny models of every family, as fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tiny_families import FAMILIES, build
from tiny_parts import PIXART, SANA


@pytest.fixture(scope="session")
def build_family() -> Callable[..., Any]:
    """The builder of families."""
    return build


@pytest.fixture(scope="session")
def published() -> dict[str, dict[str, Any]]:
    """Published configurations of the transformers, in full size."""
    return {"pixart": PIXART["transformer"], "sana": SANA["transformer"]}


@pytest.fixture(scope="module", autouse=True)
def few_texts() -> Iterator[None]:
    """Edits with fewer random texts than usual, which take most of the time of small models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("safegen.editing.conditions.RANDOM_TEXTS", 24)
        yield


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Each family's name in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def pipeline(family: str) -> Any:
    """The family's pipeline; tests leave it as it was."""
    return build(family)
