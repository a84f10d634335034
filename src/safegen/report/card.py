"""The model card of a patch or of a model it was applied to."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from safegen.files import write_atomically
from safegen.report.figures import figure_rows
from safegen.report.provenance import sections
from safegen.report.records import RunFacts
from safegen.report.templating import environment

TAGS = ("safegen", "safety", "concept-erasure", "stable-diffusion")
_METRICS = {
    "removal_rate": "Removal rate",
    "retention": "Retention",
    "clip_score": "CLIP score",
    "frechet_distance": "Fréchet distance",
}


def model_card(
    summary: Mapping[str, Any],
    facts: RunFacts,
    *,
    dataset: str,
    base_model: str | None = None,
    license: str | None = None,
    name: str | None = None,
) -> ModelCard:
    """The card, with the figures as its ``model-index``.

    Args:
        summary: what ``build_summary`` made.
        facts: what was done.
        dataset: name of the collection of prompt sets, for example ``safegen-lab``.
        base_model: hub id of the base model; left out where None.
        license: the base model's licence identifier; left out where None, never guessed.
        name: the hardened model's name; by default from the model and the concept.
    """
    model = base_model or facts.model
    title = name or f"{facts.model} hardened against {facts.concept}"
    data = ModelCardData(
        library_name="diffusers",
        pipeline_tag="text-to-image",
        base_model=base_model,
        license=license,
        tags=list(TAGS),
        model_name=title,
        eval_results=list(_eval_results(summary, dataset)),
    )
    template = environment(autoescape=False).get_template("model_card.md.j2")
    content = template.render(
        metadata=data.to_yaml(),
        title=title,
        facts=facts,
        command=shlex.join(["safegen", "apply", model, facts.patch, "--out", "hardened"]),
        model_literal=json.dumps(model),
        patch_literal=json.dumps(facts.patch),
        license=license,
        rows=figure_rows(summary),
        confidence=summary["intervals"]["confidence"],
        sections=sections(summary),
    )
    return ModelCard(content)


def write_model_card(path: Path, card: ModelCard) -> None:
    """Write the card as the Markdown file that the hub shows."""
    write_atomically(path, str(card))


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
