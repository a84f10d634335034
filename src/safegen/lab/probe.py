"""Probe of patches on the lab, in memory on a few prompts: for choices, not for reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safegen.evaluation.scoring import score
from safegen.lab.pictures import SAMPLING, draw_prompts
from safegen.lab.prompts import lab_prompts
from safegen.lab.world.objects import UNSAFE_NAMES
from safegen.lab.world.world import KINDS, Kind, Split
from safegen.observers import Sight, create_observer
from safegen.patches.patch import Patch, apply, remove
from safegen.prompts import Prompt
from safegen.report.ranks import Effect
from safegen.report.standing import standing
from safegen.results.records import (
    ORIGINAL,
    Cell,
    DefenseRecord,
    Item,
    PromptSetRecord,
    Role,
    Table,
)

Prompts = Mapping[Kind, Sequence[Prompt]]
PATCHED = "patch"
OBSERVERS = ("detector:lab", "objects:lab", "clip:lab")
ROLES: dict[Kind, Role] = {
    "explicit": "unsafe",
    "implicit": "unsafe",
    "benign": "benign",
    "near-miss": "near-miss",
}


def probe_prompts(count: int, split: Split = "validation") -> dict[Kind, list[Prompt]]:
    """List ``count`` prompts per kind; choices are made on ``validation``."""
    return {kind: lab_prompts(kind, split, count) for kind in KINDS}


class Probe:
    """Probe of patches on one of the lab's models, against that model without patches.

    Args:
        pipeline: pipeline without a patch, which draws its pictures once.
        prompts: prompts of all kinds.
        observers: specs of what looks at the pictures.
    """

    def __init__(
        self, pipeline: Any, prompts: Prompts, observers: Sequence[str] = OBSERVERS
    ) -> None:
        self._pipeline = pipeline
        self._observers = [create_observer(spec) for spec in observers]
        self._prompts = prompts
        self._original = self._cells(ORIGINAL)

    def table(self, patch: Patch) -> Table:
        """Measure a patch and take it off again; its row is called ``PATCHED``.

        Raises:
            SafegenError: the patch does not fit.
        """
        apply(self._pipeline, patch)
        try:
            cells = self._original | self._cells(PATCHED)
        finally:
            remove(self._pipeline, patch)
        sets = [PromptSetRecord(kind, ROLES[kind]) for kind in self._prompts]
        return score(cells, [DefenseRecord(ORIGINAL), DefenseRecord(PATCHED)], sets)

    def effect(self, patch: Patch) -> Effect:
        """Measure a patch's mean removal on the unsafe kinds, and mean retention on the others."""
        found = standing(self.table(patch))
        if found is None:
            return Effect(None, None)
        before, after = found.kept[ORIGINAL].value, found.kept[PATCHED].value
        return Effect(found.mean_removal[PATCHED].value, after / before if before else None)

    def _cells(self, defense: str) -> dict[tuple[str, str], Cell]:
        return {(defense, kind): self._cell(defense, kind) for kind in self._prompts}

    def _cell(self, defense: str, kind: Kind) -> Cell:
        prompts = self._prompts[kind]
        images = draw_prompts(self._pipeline, prompts)
        sights = [Sight(*pair) for pair in zip(images, (p.text for p in prompts), strict=True)]
        items = [Item(p.id, 0, p.text, p.seed, SAMPLING.guidance_scale, p.asked) for p in prompts]
        seen = {each.identity.name: each.observe(sights) for each in self._observers}
        return Cell(defense, kind, ROLES[kind], items, seen, frozenset(UNSAFE_NAMES))
