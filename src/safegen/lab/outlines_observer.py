"""Observer of the outlines of objects, which a detector may no longer see."""

from __future__ import annotations

from safegen.lab.detector import OUTLINE
from safegen.lab.objects_observer import check_classifier
from safegen.lab.world.objects import UNSAFE_NAMES
from safegen.observers import ObserverIdentity
from safegen.observers.detector import DetectorObserver
from safegen.registry import Spec


class OutlineObserver(DetectorObserver):
    """Records ``detections`` of the judge of outlines.

    Args:
        judge: name of the judge; only ``lab``.
        labels: objects that count.
    """

    def __init__(self, judge: str, *, labels: tuple[str, ...] = UNSAFE_NAMES) -> None:
        check_classifier("outlines", judge)
        super().__init__(Spec(f"lab:{OUTLINE},labels={'+'.join(labels)}"))
        self.identity = ObserverIdentity("outlines", self.identity.settings)
