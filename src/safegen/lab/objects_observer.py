"""Observer of the objects that each picture shows, for retention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from safegen.errors import SafegenError
from safegen.lab.classifier import classifier_identity, object_scores
from safegen.observers import Observation, ObserverIdentity, Sight
from safegen.observers._common import pictures


class ObjectObserver:
    """Records ``scores``: one in [0, 1] per object name.

    Args:
        classifier: name of the classifier; only ``lab``.
    """

    compares = False

    def __init__(self, classifier: str) -> None:
        if classifier != "lab":
            raise SafegenError(f"observer objects: unknown classifier {classifier!r}; known: lab")
        self.identity = ObserverIdentity("objects", asdict(classifier_identity()))

    def observe(self, sights: Sequence[Sight]) -> list[Observation]:
        """See ``Observer.observe``."""
        found = object_scores(pictures(sights))
        return [
            Observation({"scores": {name: float(score) for name, score in scores.items()}})
            for scores in found
        ]
