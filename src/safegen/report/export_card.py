"""Card of an exported model, with the figures that an evaluation measured."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard
from yaml import YAMLError

from safegen.errors import SafegenError, first_line
from safegen.files import file_hash
from safegen.models.loading import resolve
from safegen.patches.patch import Patch
from safegen.profiles import profile_of
from safegen.report.card import CardDecision, CardSubject, card_figures, write_card
from safegen.report.tables import read_summary
from safegen.results.records import ORIGINAL, Table


def export_card(
    model: str,
    patch: Path | None,
    summary: Path,
    *,
    license: str | None = None,
    base_model: str | None = None,
    half: bool = False,
    whole: bool = True,
    decision: CardDecision | None = None,
) -> ModelCard:
    """Write the card of a patch, or of a model's pipeline with the patch applied.

    Args:
        model: base model: ``lab``, a folder, a file, or a hub id.
        patch: file of the patch, unchanged since it was measured; None for the model as it is.
        summary: ``summary.json`` of an evaluation.
        license: licence of the model (default: from the model's own card).
        base_model: hub id of the model (default: ``model``, if that is one).
        half, whole: see ``CardSubject``.
        decision: decision on the release of the model.

    Raises:
        SafegenError: the summary does not measure this patch alone, or another method made it.
    """
    metadata = Patch.load(patch).metadata if patch else {}
    method = metadata.get("method", "safegen")
    if method != "safegen":
        raise SafegenError(f"{patch}: is a patch of {method}, and cards tell of safegen's only")
    table = read_summary(summary)
    figures = card_figures(table, _defense_of(table, summary, patch) if patch else ORIGINAL)
    concept = metadata.get("concept") or (table.provenance.get("concept") or {}).get("name")
    place = resolve(model) if not Path(model).is_file() else Path(model)
    subject = CardSubject(
        model=Path(model).name if isinstance(place, Path) else model,
        concept=str(concept or "unsafe"),
        patch=patch.name if patch else None,
        base_model=base_model or (None if isinstance(place, Path) else model),
        license=license or _own_license(place),
        whole=whole,
        half=half,
        scope=metadata.get("settings", {}).get("scope", "self-attention"),
    )
    return write_card(subject, figures, decision)


def _own_license(place: Path | str) -> str | None:
    """Read the licence from the model's profile, or the card in its folder; None without either."""
    if (profile := profile_of(place)) is not None:
        return profile.licence
    readme = place / "README.md" if isinstance(place, Path) else None
    if readme is None or not readme.is_file():
        return None
    try:
        card = ModelCard(readme.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    except (OSError, ValueError, YAMLError) as error:
        raise SafegenError(
            f"{readme}: its header cannot be read ({first_line(error)}); mend it, or give --license"
        ) from error
    found = card.data.get("license")
    if not isinstance(found, str | None):
        raise SafegenError(f"{readme}: its licence is {found!r}, not one name; give --license")
    return found or None


def _defense_of(table: Table, path: Path, patch: Path) -> str:
    """Find the defense that is this patch alone."""
    wanted = file_hash(patch)
    for record in table.defenses:
        if record.settings.get("file_hash") == wanted:
            return record.name
    measured = ", ".join(record.name for record in table.defenses)
    raise SafegenError(
        f"{path}: does not measure {patch} by itself, only {measured}; evaluate it with "
        f"--defense safegen:{patch}"
    )
