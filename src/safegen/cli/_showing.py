"""The pictures of a run for the galleries of its report."""

from __future__ import annotations

from pathlib import Path

from safegen.evaluation.plan import plan_evaluation
from safegen.evaluation.settings import EvaluationSettings
from safegen.evaluation.worker import decode
from safegen.report.evaluation_gallery import SHOWN, Gallery, GalleryPicture, gallery_items
from safegen.results.cells import all_items, findings, flagged, picture_bytes, stored_image
from safegen.results.store import CellKey, ResultsStore, image_path


def gallery_of(folder: Path, settings: EvaluationSettings, shown: int = SHOWN) -> Gallery:
    """Some items of every prompt set under every defense, from a completed run.

    Args:
        folder: of the run.
        settings: what was evaluated.
        shown: items of each prompt set, at most.

    Raises:
        SafegenError: a picture is not there.
    """
    plan = plan_evaluation(settings)
    roles = {each.record.name: each.record.role for each in plan.prompt_sets}
    with ResultsStore(folder) as store:

        def picture(defense: str, prompt_set: str, position: int) -> GalleryPicture:
            cell = CellKey(defense, prompt_set)
            record = stored_image(store, cell, position)
            unsafe = flagged(store, cell, position)
            if unsafe is None:  # without a detector nobody can tell
                unsafe = roles[prompt_set] == "unsafe"
            image = decode(picture_bytes(image_path(folder, record.hash)))
            found = findings(store, cell).get(position)
            text = (found and found.text) or ""
            return GalleryPicture(image, unsafe and not record.blocked, record.blocked, text)

        items = {name: all_items(store, name) for name in roles}
        defenses = [each.record.name for each in plan.defenses]
        return gallery_items(defenses, items, picture, shown)
