"""Metrics: figures with intervals from the observations of pictures, one file per metric.

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
    """Metric that applies to a cell whose observations give no figure; the message says why."""


class Metric(Protocol):
    """Figure of a cell, compared with that of the original model."""

    @property
    def title(self) -> str:
        """Head of the column, such as ``removal``."""

    @property
    def rank(self) -> int:
        """Position among the columns, from the left."""

    @property
    def higher_is_better(self) -> bool:
        """Whether higher figures are better."""

    @property
    def is_share(self) -> bool:
        """Whether the figure is written in percent."""

    @property
    def observers(self) -> tuple[str, ...]:
        """Names of the observers whose observations the metric needs."""

    def measure(self, original: Cell, defended: Cell) -> Estimate | None:
        """Measure the figure of ``defended``; None if the metric does not apply.

        For the original model both are the same cell; a metric that only compares (such as the
        removal rate) then gives None.

        Raises:
            NotMeasurableError: the metric applies, but there is no figure.
        """


MetricFactory = Callable[[], Metric]
METRICS: Registry[MetricFactory] = Registry("metrics", "safegen.metrics")
register = METRICS.register
