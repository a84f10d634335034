"""The model card of a patch or of a model it was applied to."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from safegen.files import write_atomically
from safegen.models.options import Scope
from safegen.report.figures import FigureRow, figure_rows
from safegen.report.provenance import Entries, sections
from safegen.report.records import RunFacts
from safegen.report.templating import environment

TAGS = ("safegen", "safety", "concept-erasure", "stable-diffusion")
_METRICS = {
    "removal_rate": "Removal rate",
    "retention": "Retention",
    "clip_score": "CLIP score",
    "frechet_distance": "Fréchet distance",
}


@dataclass(frozen=True)
class CardFigures:
    """What was measured of a hardened model, as a card tells it.

    Attributes:
        rows: of the table.
        results: of the metadata's ``model-index``.
        detector: name, version and threshold of what decided on the unsafe.
        confidence: level of the intervals, in (0, 1).
        sections: all else that a repetition needs, as named lists.
        edit_seconds: duration of the edit, where it is known.
    """

    rows: tuple[FigureRow, ...]
    results: tuple[EvalResult, ...]
    detector: Mapping[str, Any]
    confidence: float
    sections: Mapping[str, Entries]
    edit_seconds: float | None = None


@dataclass(frozen=True)
class CardSubject:
    """What a card is about.

    Attributes:
        model: the base model's name or hub id.
        concept: the word for what was removed, as it stands in a sentence ("weapons").
        patch: the patch's file name.
        base_model: hub id of the base model; left out where None.
        license: the base model's licence identifier; left out where None, never guessed.
        name: the hardened model's name; by default from the model and the concept.
        whole: whether the card lies in a complete pipeline, not beside a patch.
        half: whether the weights were written in half precision after they were measured.
        scope: what the edit trained.
    """

    model: str
    concept: str
    patch: str
    base_model: str | None = None
    license: str | None = None
    name: str | None = None
    whole: bool = False
    half: bool = False
    scope: Scope = "self-attention"

    @property
    def title(self) -> str:
        """The heading."""
        return self.name or f"{self.model} hardened against {self.concept}"


def model_card(
    summary: Mapping[str, Any],
    facts: RunFacts,
    *,
    dataset: str,
    base_model: str | None = None,
    license: str | None = None,
    name: str | None = None,
) -> ModelCard:
    """The card of a demo's patch, with the figures as its ``model-index``.

    Args:
        summary: what ``build_summary`` made.
        facts: what was done.
        dataset: name of the collection of prompt sets, for example ``safegen-lab``.
        base_model: see ``CardSubject``.
        license: see ``CardSubject``.
        name: see ``CardSubject``.
    """
    subject = CardSubject(
        facts.model,
        facts.concept,
        facts.patch,
        base_model,
        license,
        name,
        scope=facts.settings.get("edit", {}).get("scope", "self-attention"),
    )
    return write_card(subject, summary_figures(summary, dataset, asdict(facts.detector)))


def write_card(subject: CardSubject, figures: CardFigures) -> ModelCard:
    """The card of a subject with its figures."""
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
    template = environment(autoescape=False).get_template("model_card.md.j2")
    content = template.render(
        metadata=data.to_yaml(),
        subject=subject,
        figures=figures,
        command=shlex.join(["safegen", "apply", model, subject.patch, "--out", "hardened"]),
        model_literal=json.dumps(model),
        patch_literal=json.dumps(subject.patch),
    )
    return ModelCard(content)


def write_model_card(path: Path, card: ModelCard) -> None:
    """Write the card as the Markdown file that the hub shows."""
    write_atomically(path, str(card))


def summary_figures(
    summary: Mapping[str, Any], dataset: str, detector: Mapping[str, Any]
) -> CardFigures:
    """The figures of what ``build_summary`` made."""
    return CardFigures(
        rows=tuple(figure_rows(summary)),
        results=tuple(_eval_results(summary, dataset)),
        detector=detector,
        confidence=summary["intervals"]["confidence"],
        sections=sections(summary),
        edit_seconds=summary["edit_seconds"],
    )


def _eval_results(summary: Mapping[str, Any], dataset: str) -> Iterator[EvalResult]:
    for metric, title in _METRICS.items():
        if metric not in summary:
            continue
        value = summary[metric]
        groups = value if isinstance(value, Mapping) else {"benign": value}
        for group, figure in groups.items():
            yield EvalResult(
                task_type="text-to-image",
                dataset_type=dataset,
                dataset_name=f"{dataset}, {group.replace('_', '-')}",
                dataset_config=group,
                metric_type=metric,
                metric_name=title,
                metric_value=figure,
            )
