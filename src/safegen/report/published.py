"""Published figures beside those of a table: for orientation, since their pictures differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from safegen.report.measures import interval_text, value_text
from safegen.report.wording import literal
from safegen.results.records import Estimate, Table

REMOVAL, PARTS = "removal", "part-removal"
I2P = ("i2p",)
ADVERSARIAL = ("sneakyprompt-n", "sneakyprompt-p")
NOTE = (
    "Published figures come from other pictures, prompts, seeds and judges. They stand here for "
    "orientation, and compare only within the table that they are from."
)


@dataclass(frozen=True)
class Published:
    """Published figure.

    Attributes:
        defense: name of the defense in tables.
        prompt_sets: names of the prompt sets that it may stand beside.
        metric: metric that comes nearest to what was published.
        low, high: range of the published figures, as shares.
        source: where it was published, and how it was measured.
    """

    defense: str
    prompt_sets: tuple[str, ...]
    metric: str
    low: float
    high: float
    source: str


_SLD = "arXiv 2211.05105: all of I2P, other judges"
_ESD = "arXiv 2303.07345 and others: NudeNet of 2023"
HEADLINE = Published(
    "safegen+sld-max",
    ("nsfw-56k", *ADVERSARIAL, *I2P),
    PARTS,
    0.991,
    0.994,
    "arXiv 2404.06666, abstracts of its versions: the stack with SLD-Max, NudeNet of 2023 and a "
    "review by hand",
)
FIGURES = (
    HEADLINE,
    Published("sld-weak", I2P, REMOVAL, 0.26, 0.26, _SLD),
    Published("sld-medium", I2P, REMOVAL, 0.51, 0.51, _SLD),
    Published("sld-strong", I2P, REMOVAL, 0.40, 0.67, f"{_SLD}; 40 % elsewhere"),
    Published("sld-max", I2P, REMOVAL, 0.35, 0.77, f"{_SLD}; 35 to 48 % elsewhere"),
    Published("sld-strong", ADVERSARIAL, REMOVAL, 0.01, 0.06, "several re-measurements"),
    Published("sld-max", ADVERSARIAL, REMOVAL, 0.25, 0.40, "several re-measurements"),
    Published("esd-u", I2P, REMOVAL, 0.83, 0.89, _ESD),
    Published("esd-u", ADVERSARIAL, REMOVAL, 0.65, 0.98, "several re-measurements"),
    Published("sd-v2.1", I2P, REMOVAL, 0.12, 0.48, "arXiv 2303.07345 (48 %), and another (12 %)"),
    Published("safety-filter", ADVERSARIAL, REMOVAL, 0.85, 0.97, "several re-measurements"),
)


@dataclass(frozen=True)
class Compared:
    """Published figure, and the measured one on one prompt set.

    Attributes:
        published: the published figure.
        prompt_set: prompt set of the measured one.
        measured: measured figure; None without one.
    """

    published: Published
    prompt_set: str
    measured: Estimate | None

    @property
    def cells(self) -> tuple[str, ...]:
        """Defense, prompt set, both figures and the source as texts."""
        told = self.published
        ends = dict.fromkeys(value_text(told.metric, end) for end in (told.low, told.high))
        return told.defense, self.prompt_set, " to ".join(ends), self._measured(), told.source

    def _measured(self) -> str:
        found, metric = self.measured, self.published.metric
        if found is None:
            return "not measured"
        interval = interval_text(metric, found)
        between = f"{interval}, " if interval else ""
        return f"{value_text(metric, found.value)} ({between}n = {found.count})"

    def __str__(self) -> str:
        """Describe both in a line."""
        defense, prompt_set, published, measured, source = self.cells
        return f"{defense} on {prompt_set}: published {published}, measured {measured} [{source}]"


def comparison(table: Table) -> list[Compared]:
    """List the published figures of a table's defenses and prompt sets, with the measured ones."""
    defenses = {record.name for record in table.defenses}
    shown = {record.name for record in table.prompt_sets}
    return [
        Compared(each, name, table.figures.get((each.defense, name, each.metric)))
        for each in FIGURES
        if each.defense in defenses
        for name in each.prompt_sets
        if name in shown
    ]


def markdown(rows: Iterable[Compared]) -> str:
    """Write the comparison in Markdown."""
    return "\n".join([*_lines(rows), "", NOTE, ""])


def _lines(rows: Iterable[Compared]) -> Iterator[str]:
    yield "| defense | prompts | removal, published | measured | source of the published |"
    yield "|---|---|--:|--:|---|"
    for row in rows:
        yield f"| {' | '.join(map(literal, row.cells))} |"
