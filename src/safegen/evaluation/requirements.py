"""Requirements: bounds on a table's figures, such as ``removal>=0.99``, for gates in CI."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from safegen.errors import SafegenError
from safegen.metrics import METRICS
from safegen.results.records import ORIGINAL, Table

_FORM = re.compile(
    r"\s*(?:(?P<defense>[^:@<>=]+):)?(?P<metric>[^:@<>=]+)(?:@(?P<set>[^:@<>=]+))?"
    r"(?P<relation>[<>]=)(?P<bound>[^<>=]+)"
)


@dataclass(frozen=True)
class Requirement:
    """Bound on a metric.

    Attributes:
        metric: registered name of the metric.
        relation: ``>=`` for the lowest value allowed, ``<=`` for the highest.
        bound: value of the bound.
        defense: defense that must keep the bound; all but the original if None.
        prompt_set: prompt set of the bound; all to which the metric applies if None.
    """

    metric: str
    relation: Literal[">=", "<="]
    bound: float
    defense: str | None = None
    prompt_set: str | None = None

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Parse ``METRIC>=VALUE``, ``METRIC@SET<=VALUE`` or ``DEFENSE:METRIC@SET>=VALUE``.

        Raises:
            SafegenError: the text has another form.
        """
        found = _FORM.fullmatch(text)
        try:
            if found is None or any(not (name or "x").strip() for name in found.groups()):
                raise ValueError
            bound = float(found["bound"])
        except ValueError:
            raise SafegenError(
                f"requirement {text!r}: write METRIC>=VALUE or METRIC<=VALUE, as in removal>=0.99, "
                "removal@i2p>=0.99 or safegen:removal@i2p>=0.99"
            ) from None
        if not math.isfinite(bound):
            raise SafegenError(f"requirement {text!r}: the bound must be a finite number")
        relation: Literal[">=", "<="] = ">=" if found["relation"] == ">=" else "<="
        defense, prompt_set = (found[name] and found[name].strip() for name in ("defense", "set"))
        return cls(found["metric"].strip(), relation, bound, defense, prompt_set)

    def __str__(self) -> str:
        """Write the form that ``parse`` reads."""
        defense = f"{self.defense}:" if self.defense else ""
        place = f"@{self.prompt_set}" if self.prompt_set else ""
        return f"{defense}{self.metric}{place}{self.relation}{self.bound!r}"

    def kept_by(self, value: float) -> bool:
        """Test whether a value keeps the bound; NaN does not."""
        return value >= self.bound if self.relation == ">=" else value <= self.bound


def check_names(
    requirements: Iterable[Requirement],
    defenses: Collection[str] | None,
    prompt_sets: Collection[str],
    observers: Collection[str],
) -> None:
    """Check that all that requirements name is evaluated.

    Args:
        requirements: bounds to check.
        defenses: names of the table's rows; None if not yet known.
        prompt_sets: names of the prompt sets.
        observers: names of the observers.

    Raises:
        SafegenError: a metric, defense or prompt set is unknown, or a metric's observer is not
            given.
    """
    for requirement in requirements:
        needed = METRICS.get(requirement.metric)().observers
        for what, name, known in (
            ("defense", requirement.defense, defenses),
            ("prompt set", requirement.prompt_set, prompt_sets),
        ):
            if name is not None and known is not None and name not in known:
                raise SafegenError(
                    f"requirement {requirement}: no {what} {name!r} is evaluated; there are "
                    f"{', '.join(known)}"
                )
        missing = [name for name in needed if name not in observers]
        if missing:
            raise SafegenError(
                f"requirement {requirement}: {requirement.metric} is computed from what "
                f"{' and '.join(missing)} sees; give --{missing[0]}"
            )
        if requirement.defense is None and defenses is not None and set(defenses) <= {ORIGINAL}:
            raise SafegenError(f"requirement {requirement}: no defense is evaluated; give one")


def missed(requirements: Iterable[Requirement], table: Table) -> list[str]:
    """List a line for each figure of a table that misses a bound.

    Raises:
        SafegenError: the table has no figure for a requirement.
    """
    return [line for requirement in requirements for line in _missed(requirement, table)]


def _missed(requirement: Requirement, table: Table) -> Iterator[str]:
    found = False
    for (defense, prompt_set, metric), estimate in table.figures.items():
        if metric != requirement.metric or requirement.prompt_set not in (None, prompt_set):
            continue
        if defense != requirement.defense if requirement.defense else defense == ORIGINAL:
            continue
        found = True
        if not requirement.kept_by(estimate.value):
            yield (f"{requirement}: missed by {defense} on {prompt_set}, with {estimate.value:.4g}")
    if not found:
        raise SafegenError(
            f"requirement {requirement}: the table has no such figure; {requirement.metric} does "
            "not apply there"
        )
