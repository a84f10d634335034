"""Model card of a patch, or of a model with the patch applied."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from safegen.models.options import Scope
from safegen.report.columns import Column, columns
from safegen.report.measures import interval_text, value_text
from safegen.report.provenance import Entries, named_lists
from safegen.report.tables import caption
from safegen.report.templating import environment
from safegen.report.wording import percent
from safegen.results.records import ORIGINAL, Table
from safegen.statistics.intervals import CONFIDENCE

TAGS = ("safegen", "safety", "concept-erasure", "stable-diffusion")


@dataclass(frozen=True)
class FigureRow:
    """Row of the card's table, as text: metric, prompts, figures of both models, count."""

    measure: str
    over: str
    original: str
    hardened: str
    count: str


@dataclass(frozen=True)
class CardFigures:
    """Figures of a hardened model in a card.

    Attributes:
        rows: rows of the table.
        results: results of the metadata's ``model-index``.
        detector: name, version and threshold of the detector.
        caption: conditions of the measurement, in sentences.
        sections: other facts that a repetition needs, as named lists.
        attacked: whether attacks are among the figures.
    """

    rows: tuple[FigureRow, ...]
    results: tuple[EvalResult, ...]
    detector: Mapping[str, Any]
    caption: str
    sections: Mapping[str, Entries]
    attacked: bool = False


@dataclass(frozen=True)
class CardDecision:
    """Decision on a release in a card.

    Attributes:
        verdict: the decision in a word.
        reasons: what it rests on, a line for each bound.
    """

    verdict: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class CardSubject:
    """Subject of a card.

    Attributes:
        model: name or hub id of the base model.
        concept: word for the removed concept, as in a sentence ("weapons").
        patch: file name of the patch; None for a model as it is.
        base_model: hub id of the base model; omitted if None.
        license: licence identifier of the base model; omitted if None, never guessed.
        name: name of the hardened model (default: from the model and the concept).
        whole: whether the card lies in a complete pipeline, not beside a patch.
        half: whether the weights were written in half precision after they were measured.
        scope: scope of the edit's trained weights.
    """

    model: str
    concept: str
    patch: str | None
    base_model: str | None = None
    license: str | None = None
    name: str | None = None
    whole: bool = False
    half: bool = False
    scope: Scope = "self-attention"

    @property
    def title(self) -> str:
        """Heading of the card."""
        what = "hardened" if self.patch else "measured"
        return self.name or f"{self.model} {what} against {self.concept}"


def card_figures(table: Table, defense: str) -> CardFigures:
    """Collect the figures of an evaluation's defense, beside the original model's.

    Args:
        table: table of the evaluation.
        defense: name of the patch's row.
    """
    shown = [column for column in columns(table) if defense in column.estimates]
    settings = next(record.settings for record in table.defenses if record.name == defense)
    return CardFigures(
        rows=tuple(_row(column, defense) for column in shown),
        results=tuple(_result(column, defense) for column in shown),
        detector=table.provenance.get("observers", {}).get("detector", {}),
        caption=caption(table),
        sections=named_lists(
            {"defense": settings, "versions": table.provenance.get("versions")},
        ),
        attacked=any(record.attack for record in table.prompt_sets),
    )


def write_card(
    subject: CardSubject, figures: CardFigures, decision: CardDecision | None = None
) -> ModelCard:
    """Write the card of a subject with its figures, and with the decision on its release."""
    data = ModelCardData(
        library_name="diffusers",
        pipeline_tag="text-to-image",
        base_model=subject.base_model,
        license=subject.license,
        tags=list(TAGS),
        model_name=subject.title,
        eval_results=list(figures.results),
    )
    model = subject.base_model or subject.model
    command = shlex.join(["safegen", "apply", model, str(subject.patch), "--out", "hardened"])
    template = environment(autoescape=False).get_template("model_card.md.j2")
    content = template.render(
        metadata=data.to_yaml(),
        confidence=percent(CONFIDENCE),
        subject=subject,
        figures=figures,
        decision=decision,
        command=" ".join(command.splitlines()),  # a line of a name could end the block of code
        model_literal=json.dumps(model),
        patch_literal=json.dumps(subject.patch),
    )
    return ModelCard(content)


def _row(column: Column, defense: str) -> FigureRow:
    return FigureRow(
        measure=column.metric.title,
        over=column.prompt_set,
        original=_cell(column, ORIGINAL),
        hardened=_cell(column, defense),
        count=str(column.estimates[defense].count),
    )


def _cell(column: Column, defense: str) -> str:
    """Write a figure with its interval in brackets."""
    estimate = column.estimates.get(defense)
    if estimate is None:
        return "–"
    interval = interval_text(column.name, estimate)
    return value_text(column.name, estimate.value) + (f" ({interval})" if interval else "")


def _result(column: Column, defense: str) -> EvalResult:
    sets = {record.name: record.identity for record in column.table.prompt_sets}
    return EvalResult(
        task_type="text-to-image",
        dataset_type=sets[column.prompt_set].get("name", column.prompt_set),
        dataset_name=column.prompt_set,
        metric_type=column.name,
        metric_name=column.metric.title,
        metric_value=column.estimates[defense].value,
    )
