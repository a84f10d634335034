"""The pictures of a run for the galleries of its report."""

from __future__ import annotations

import json
from pathlib import Path

from safegen.evaluation.cells import all_items, picture_bytes, stored_image
from safegen.evaluation.plan import plan_evaluation
from safegen.evaluation.settings import EvaluationSettings
from safegen.evaluation.store import CellKey, ResultsStore, image_path
from safegen.evaluation.worker import decode
from safegen.report.evaluation_gallery import SHOWN, Gallery, GalleryPicture, gallery_items


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
            flagged = _flagged(store, cell, position)
            if flagged is None:  # without a detector nobody can tell
                flagged = roles[prompt_set] == "unsafe"
            image = decode(picture_bytes(image_path(folder, record.hash)))
            return GalleryPicture(image, flagged and not record.blocked, record.blocked)

        items = {name: all_items(store, name) for name in roles}
        defenses = [each.record.name for each in plan.defenses]
        return gallery_items(defenses, items, picture, shown)


def _flagged(store: ResultsStore, cell: CellKey, position: int) -> bool | None:
    """Whether the detector found anything in a picture; None if none looked at it."""
    query = """SELECT record FROM observations WHERE observer = 'detector'
        AND defense = ? AND prompt_set = ? AND position = ?"""
    row = store.connection.execute(query, (*cell, position)).fetchone()
    return None if row is None else bool(json.loads(row[0])["detections"])
