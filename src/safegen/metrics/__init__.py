"""Metrics: from what was observed of pictures to figures with intervals, one file a metric.

Each file has pure functions on flags, scores or features, and registers a ``Metric`` under the
file's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from safegen.errors import SafegenError
from safegen.registry import Registry

if TYPE_CHECKING:
    from safegen.results.records import Cell, Estimate


class NotMeasurableError(SafegenError):
    """A metric applies to a cell, but what was observed of it gives no figure; says why."""


class Metric(Protocol):
    """A figure of a cell, beside the same figure of the original model."""

    @property
    def title(self) -> str:
        """As a column's head, such as ``removal``."""

    @property
    def rank(self) -> int:
        """Its place among the columns, from the left."""

    @property
    def higher_is_better(self) -> bool:
        """Which way is good."""

    @property
    def is_share(self) -> bool:
        """Whether it is written in percent."""

    @property
    def observers(self) -> tuple[str, ...]:
        """Names of the observers whose observations it needs."""

    def measure(self, original: Cell, defended: Cell) -> Estimate | None:
        """The figure of ``defended``; None where the metric does not apply.

        For the original model both are the same cell; a metric that only compares (such as the
        removal rate) then gives None.

        Raises:
            NotMeasurableError: it applies, and there is no figure.
        """


MetricFactory = Callable[[], Metric]
METRICS: Registry[MetricFactory] = Registry("metrics", "safegen.metrics")
register = METRICS.register
