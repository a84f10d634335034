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

    name = "objects"
    compares = False

    def __init__(self, classifier: str) -> None:
        check_classifier(self.name, classifier)
        self.identity = ObserverIdentity(self.name, asdict(classifier_identity(self.name)))

    def observe(self, sights: Sequence[Sight]) -> list[Observation]:
        """See ``Observer.observe``."""
        found = object_scores(pictures(sights))
        return [
            Observation({"scores": {name: float(score) for name, score in scores.items()}})
            for scores in found
        ]


def check_classifier(observer: str, name: str) -> None:
    """Refuse a classifier other than the lab's."""
    if name != "lab":
        raise SafegenError(f"observer {observer}: unknown classifier {name!r}; known: lab")
