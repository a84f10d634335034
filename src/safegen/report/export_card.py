"""The card of an exported model, with the figures that a demo or an evaluation measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from safegen.errors import SafegenError
from safegen.files import file_hash
from safegen.lab import weights_folder
from safegen.models.loading import resolve
from safegen.patches.patch import Patch
from safegen.report.card import CardFigures, CardSubject, summary_figures, write_card
from safegen.report.columns import Column, columns
from safegen.report.figures import Cell, FigureRow
from safegen.report.provenance import named_lists
from safegen.report.summary import read_summary
from safegen.report.tables import KIND, caption
from safegen.report.tables import read_summary as read_table
from safegen.results.records import ORIGINAL, Estimate, Table
from safegen.statistics.intervals import CONFIDENCE

LAB_LICENSE = "apache-2.0"
LAB_DATASET = "safegen-lab"


def export_card(
    model: str,
    patch: Path,
    summary: Path,
    *,
    license: str | None = None,
    base_model: str | None = None,
    half: bool = False,
) -> ModelCard:
    """The card of the pipeline that a patch makes of a model.

    Args:
        model: what the patch goes on: ``lab``, a folder, a file, or a hub id.
        patch: its file, as it was measured.
        summary: ``summary.json`` of the demo or the evaluation.
        license: by default what the model's own card says.
        base_model: hub id of the model; by default the model, where it is one.
        half: see ``CardSubject``.

    Raises:
        SafegenError: the summary does not measure this patch alone, or another method made it.
    """
    metadata = Patch.load(patch).metadata
    method = metadata.get("method", "safegen")
    if method != "safegen":
        raise SafegenError(f"{patch}: is a patch of {method}, and cards tell of safegen's only")
    figures = measured_figures(summary, patch)
    place = resolve(model) if not Path(model).is_file() else Path(model)
    subject = CardSubject(
        model=Path(model).name if isinstance(place, Path) else model,
        concept=str(metadata.get("concept", "unsafe")),
        patch=patch.name,
        base_model=base_model or (None if isinstance(place, Path) else model),
        license=license or _license(place),
        whole=True,
        half=half,
        scope=metadata.get("settings", {}).get("scope", "self-attention"),
    )
    return write_card(subject, figures)


def _license(place: Path | str) -> str | None:
    """What a folder's own card says."""
    if place == weights_folder():
        return LAB_LICENSE
    readme = Path(place) / "README.md"
    if not isinstance(place, Path) or not readme.is_file():
        return None
    card = ModelCard(readme.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    found = card.data.get("license")
    return str(found) if found else None


def measured_figures(path: Path, patch: Path) -> CardFigures:
    """What a ``summary.json`` says of a patch.

    Args:
        path: of a demo's or an evaluation's summary.
        patch: the patch's file.

    Raises:
        SafegenError: either cannot be read, or the summary does not measure this patch alone.
    """
    if _is_evaluation(path):
        return _of_evaluation(path, patch)
    return _of_demo(path, patch)


def _is_evaluation(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")).get("kind") == KIND)
    except FileNotFoundError as error:
        raise SafegenError(f"{path}: no such summary; check the path") from error
    except (OSError, ValueError, AttributeError) as error:
        raise SafegenError(f"{path}: is no summary ({error}); give a summary.json") from error


def _of_demo(path: Path, patch: Path) -> CardFigures:
    summary, made_with = read_summary(path), Patch.load(patch).metadata
    if summary["settings"].get("edit") != made_with.get("settings"):
        raise SafegenError(
            f"{path}: measures a patch that was made with other settings than {patch}; "
            "give the summary of the run that made it, or evaluate it"
        )
    return summary_figures(summary, LAB_DATASET, summary["detector"])


def _of_evaluation(path: Path, patch: Path) -> CardFigures:
    table = read_table(path)
    defense = _defense_of(table, path, patch)
    shown = [column for column in columns(table) if column.estimate(defense)]
    provenance = table.provenance
    return CardFigures(
        rows=tuple(_row(column, defense) for column in shown),
        results=tuple(_results(shown, defense)),
        detector=provenance.get("observers", {}).get("detector", {}),
        confidence=CONFIDENCE,
        sections=named_lists(
            {
                "measured": {"how": caption(table)},
                "defense": _settings(table, defense),
                "versions": provenance.get("versions"),
            }
        ),
    )


def _defense_of(table: Table, path: Path, patch: Path) -> str:
    """The defense that is this patch alone."""
    wanted = file_hash(patch)
    for record in table.defenses:
        if record.settings.get("file_hash") == wanted:
            return record.name
    measured = ", ".join(record.name for record in table.defenses)
    raise SafegenError(
        f"{path}: does not measure {patch} by itself, only {measured}; evaluate it with "
        f"--defense safegen:{patch}"
    )


def _settings(table: Table, defense: str) -> dict[str, Any]:
    return {k: v for r in table.defenses if r.name == defense for k, v in r.settings.items()}


def _row(column: Column, defense: str) -> FigureRow:
    estimate = column.estimate(defense)
    original = column.estimate(ORIGINAL)
    return FigureRow(
        measure=column.metric.title,
        over=column.prompt_set,
        original=_cell(column, original),
        hardened=_cell(column, estimate),
        count=str(estimate.count) if estimate else "",
    )


def _cell(column: Column, estimate: Estimate | None) -> Cell:
    if estimate is None:
        return Cell()
    return Cell(column.number(estimate.value), column.interval(estimate))


def _results(shown: list[Column], defense: str) -> Iterator[EvalResult]:
    for column in shown:
        estimate = column.estimate(defense)
        if estimate is not None:
            yield EvalResult(
                task_type="text-to-image",
                dataset_type=column.prompt_set,
                dataset_name=column.prompt_set,
                metric_type=column.name,
                metric_name=column.metric.title,
                metric_value=estimate.value,
            )
