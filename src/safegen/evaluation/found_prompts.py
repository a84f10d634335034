"""Prompts that attacks found, as a prompt set with the origin of each."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safegen.errors import SafegenError
from safegen.evaluation.executors import ExecutorOptions
from safegen.evaluation.plan import PlannedDefense, plan_evaluation, planned_defenses
from safegen.evaluation.run import Progress, observe
from safegen.evaluation.settings import EvaluationSettings
from safegen.files import write_atomically
from safegen.results.cells import all_items, findings, flagged
from safegen.results.store import CellKey, ResultsStore

Row = dict[str, Any]
"""Found prompt: the columns that ``prompts.own`` reads, and its origin."""
_FOUND = "found"


@dataclass(frozen=True)
class Saving:
    """Destination of found prompts.

    Attributes:
        path: .csv or .jsonl file to write.
        transfer_to: names of the run's defenses that also draw the prompts; all if None.
    """

    path: Path
    transfer_to: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.path.suffix.lower() not in _RENDERED:
            raise SafegenError(
                f"{self.path}: found prompts are written as {' or '.join(_RENDERED)}; "
                "give the file such a name"
            )


def check_saving(saving: Saving, settings: EvaluationSettings) -> None:
    """Check that prompts can be found, judged, and drawn with the named defenses.

    Raises:
        SafegenError: no attack searches prompts, there is no detector, or a defense is not in
            the run.
    """
    attacks = [each.record for each in plan_evaluation(settings).prompt_sets if each.record.attack]
    if not any((record.attack or {}).get("side") == "text" for record in attacks):
        names = ", ".join(record.name for record in attacks) or "nothing"
        raise SafegenError(
            f"{saving.path}: no prompts can be found by {names}; make an attack on the text's side"
        )
    if _detector(settings) is None:
        raise SafegenError(
            f"{saving.path}: which prompts succeed is for a detector to say; give --detector"
        )
    known = [each.record.name for each in planned_defenses(settings)]
    for name in saving.transfer_to or ():
        if name not in known:
            raise SafegenError(
                f"no defense {name!r} is in the run for prompts to transfer to; there are "
                f"{', '.join(known)}"
            )


def save_prompts(
    saving: Saving,
    settings: EvaluationSettings,
    folder: Path,
    executor: str = "local",
    options: ExecutorOptions | None = None,
    say: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> int:
    """Write the prompts of a completed run that drew the concept, and where they transfer.

    The other defenses draw each prompt from its own seed; the run folder keeps the pictures, so
    that the same call resumes. Nothing is written if no prompt was found.

    Args:
        saving: destination of the prompts.
        settings: settings of the run.
        folder: run folder.
        executor, options, say, on_progress: see ``evaluate``.

    Returns:
        Number of written prompts.
    """
    rows = list(found_prompts(folder, settings))
    if rows:
        names = saving.transfer_to
        add_transfers(rows, settings, folder, names, executor, options, say, on_progress)
        write_prompts(saving.path, rows)
    return len(rows)


def add_transfers(
    rows: Sequence[Row],
    settings: EvaluationSettings,
    folder: Path,
    transfer_to: Sequence[str] | None = None,
    executor: str = "local",
    options: ExecutorOptions | None = None,
    say: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> None:
    """Draw found prompts with other defenses than they were found against, and record the results.

    Args:
        rows: one or more prompts; each gets ``drawn_with`` and ``transfers_to``.
        settings: settings with the defenses that draw, and the detector.
        folder: run folder, which keeps the pictures.
        transfer_to: names of the defenses; all of the settings' if None.
        executor, options, say, on_progress: see ``evaluate``.
    """
    text = _csv(rows)
    place = folder / "transfer" / hashlib.sha256(text.encode()).hexdigest()[:16]
    write_atomically(place / f"{_FOUND}.csv", text)
    names = [each.record.name for each in planned_defenses(settings)]
    specs = dict(zip(names, map(str, settings.defense_specs), strict=True))
    chosen = [name for name in names if name in (transfer_to or names)]
    drawn = replace(
        settings,
        defenses=tuple(specs[name] for name in chosen),
        unsafe=(f"{_FOUND}=own:{place / f'{_FOUND}.csv'}",),
        benign=(),
        near_miss=(),
        observers=(str(_detector(settings)),),
        samples=1,
        seed=None,
        real=None,
        attack=None,
    )
    observe(drawn, place, executor, options, say, on_progress)
    _tell_transfers(rows, place, chosen)


def write_prompts(path: Path, rows: Sequence[Row]) -> None:
    """Write found prompts, one or more, as a .csv or .jsonl file; a CSV's lists have spaces."""
    write_atomically(path, _RENDERED[path.suffix.lower()](rows))


def found_prompts(folder: Path, settings: EvaluationSettings) -> Iterator[Row]:
    """Yield the found prompts of a completed run whose picture its detector flags."""
    plan = plan_evaluation(settings)
    attacks = {each.record.name: each.record.attack for each in plan.prompt_sets}
    with ResultsStore(folder) as store:
        model = _hash(store.kept("model"))
        for defense, cell in plan.cells:
            if attack := attacks[cell.prompt_set]:
                hashes = {"attack_hash": _hash(attack), "model_hash": model}
                yield from _rows(store, defense, cell, hashes)


def _rows(
    store: ResultsStore, defense: PlannedDefense, cell: CellKey, hashes: Mapping[str, str]
) -> Iterator[Row]:
    items = all_items(store, cell.prompt_set)
    for position, found in findings(store, cell).items():
        text = (found.text or "").strip()
        if not text or not flagged(store, cell, position):
            continue
        item = items[position]
        yield {
            "id": f"{cell.prompt_set}-{cell.defense}-{item.prompt_id}-{item.sample}",
            "prompt": text,
            "seed": found.details.get("seed", item.seed),
            "guidance": item.guidance,
            "goal": item.text,
            "attack": cell.prompt_set,
            "defense": cell.defense,
            "defense_hash": _hash(defense.record.settings),
            **hashes,
            "score": found.score,
            "pictures": found.pictures,
            "passes": found.passes,
        }


def _tell_transfers(rows: Sequence[Row], place: Path, defenses: Sequence[str]) -> None:
    """Record for each prompt the other defenses that drew it, and those it passed."""
    with ResultsStore(place) as store:
        for position, row in enumerate(rows):
            others = [name for name in defenses if name != row["defense"]]
            row["drawn_with"] = others
            row["transfers_to"] = [
                name for name in others if flagged(store, CellKey(name, _FOUND), position)
            ]


def _detector(settings: EvaluationSettings) -> str | None:
    """Return the spec of the observer that flags pictures."""
    return next((spec for spec in settings.observers if spec.startswith("detector:")), None)


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _csv(rows: Sequence[Row]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        lists = {key: " ".join(value) for key, value in row.items() if isinstance(value, list)}
        writer.writerow({**row, **lists})
    return buffer.getvalue()


def _jsonl(rows: Iterable[Row]) -> str:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


_RENDERED = {".csv": _csv, ".jsonl": _jsonl}
