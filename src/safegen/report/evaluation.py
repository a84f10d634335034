"""Report of an evaluation: one HTML page without external references.

Pictures that the detector flags are blurred in the file itself, unless ``unblurred`` is set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from safegen.report.attack_verdict import attack_headline, attack_verdict
from safegen.report.budgets import attack_kind
from safegen.report.controls import control_lines
from safegen.report.evaluation_gallery import Gallery
from safegen.report.evaluation_tables import attack_rows, bar_grids, set_grids
from safegen.report.evaluation_tiles import tile_sets
from safegen.report.losses import losses_svg
from safegen.report.measures import BEST, STARS, TEST
from safegen.report.provenance import Entries, named_lists
from safegen.report.standing import kinds_of, standing
from safegen.report.templating import render_page
from safegen.report.tradeoff import tradeoff_svgs
from safegen.report.verdict import NOT_MEASURED, headline, safegen_verdict
from safegen.report.wording import listed, percent
from safegen.results.records import ORIGINAL, DefenseRecord, PromptSetRecord, Table
from safegen.statistics.intervals import CONFIDENCE

if TYPE_CHECKING:
    from safegen.editing.probes import Probed
    from safegen.editing.run_folder import EditRecord

ROLES = {
    "unsafe": "Prompts that ask for {concept}.",
    "benign": "Prompts that ask for nothing of the kind.",
    "near-miss": "Benign prompts whose pictures resemble {concept}.",
}
ATTACKED = "What the attack ({kind}) found for each goal, made anew against each defense."


def render_report(
    table: Table,
    gallery: Gallery,
    *,
    outcomes: Sequence[object] = (),
    losses: Sequence[EditRecord] = (),
    probes: Sequence[Probed] = (),
    unblurred: bool = False,
) -> str:
    """Render the page as text.

    Args:
        table: figures of the evaluation.
        gallery: pictures under each of the table's defenses.
        outcomes: figures beside the targets of a hardening or the bounds of a release, in words
            as ``str`` gives them; without them, no section on targets.
        losses: records of the edit that made the defense; without them, no section on losses.
        probes: findings of that edit's probes.
        unblurred: whether to show flagged pictures unblurred.
    """
    concept = _concept(table)
    return render_page(
        "evaluation",
        model=_model(table),
        concept=concept,
        defenses=sum(record.name != ORIGINAL for record in table.defenses),
        **_standing(table),
        attacks=attack_rows(table),
        controls=control_lines(table),
        rows_of=kinds_of(table).items(),
        outcomes=outcomes,
        probes=probes,
        losses=Markup(losses_svg(losses)) if losses else None,
        edit_seconds=losses[-1].seconds if losses else None,
        bars=bar_grids(table),
        grids=set_grids(table),
        notes=table.notes,
        legend={"stars": STARS, "test": TEST, "best": BEST},
        roles={each.name: _role(each, concept) for each in table.prompt_sets},
        confidence=percent(CONFIDENCE).replace(".0", ""),
        galleries=tile_sets(table, gallery, unblurred),
        unblurred=unblurred,
        sections=named_lists(_measured_by(table.provenance)),
        defense_records=_record_lists(table.defenses),
        prompt_set_records=_record_lists(table.prompt_sets),
    )


def _standing(table: Table) -> dict[str, Any]:
    """Build the page's texts and plots of the trade-off and of attacks."""
    found = standing(table)
    attacked, compared = attack_headline(table), attack_verdict(table)
    if found is None:
        opening = attacked or NOT_MEASURED
        return {"headline": opening, "verdict": compared, "panels": {}, "attacked": ""}
    return {
        "attacked": f"{attacked} {compared}".strip(),
        "headline": headline(found),
        "verdict": safegen_verdict(found),
        "panels": {name: Markup(svg) for name, svg in tradeoff_svgs(found).items()},
        "kept": listed(found.kept_sets),
        "averaged": len(found.kept_sets) > 1,
    }


def _role(record: PromptSetRecord, concept: str) -> str:
    """Write the purpose of a prompt set, in a sentence."""
    if record.attack:
        return ATTACKED.format(kind=attack_kind(record))
    return ROLES[record.role].format(concept=concept)


def _model(table: Table) -> str:
    model = table.provenance.get("model", "the model")
    return str(model["name"] if isinstance(model, Mapping) else model)


def _concept(table: Table) -> str:
    """Write the concept's name as in a sentence."""
    concept = table.provenance.get("concept")
    name = concept.get("name") if isinstance(concept, Mapping) else concept
    return str(name) if name and name != "concept" else "the concept"


def _measured_by(provenance: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Split the provenance into lists: one per mapping, one per observer, one of all else."""
    seed = provenance.get("seed")
    plain = {key: value for key, value in provenance.items() if not isinstance(value, Mapping)}
    plain["seed"] = "of each prompt" if seed is None else seed
    nested = {key: value for key, value in provenance.items() if isinstance(value, Mapping)}
    observers = nested.pop("observers", {})
    return {"run": plain, **nested, **observers}


def _record_lists(records: Sequence[DefenseRecord | PromptSetRecord]) -> list[tuple[str, Entries]]:
    """List each record's name with all that is recorded."""
    found = []
    for record in records:
        values = (
            record.settings
            if isinstance(record, DefenseRecord)
            else {"role": record.role, **record.identity}
        )
        found.append((record.name, named_lists({record.name: values}).get(record.name, [])))
    return found
