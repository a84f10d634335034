"""Observer of the outlines of weapons, which a detector may no longer see."""

from __future__ import annotations

from safegen.lab.detector import OUTLINE
from safegen.lab.objects_observer import check_classifier
from safegen.observers import ObserverIdentity
from safegen.observers.detector import DetectorObserver
from safegen.registry import Spec


class OutlineObserver(DetectorObserver):
    """Records ``detections`` of the judge of outlines.

    Args:
        judge: name of the judge; only ``lab``.
    """

    def __init__(self, judge: str) -> None:
        check_classifier("outlines", judge)
        super().__init__(Spec(f"lab:{OUTLINE}"))
        self.identity = ObserverIdentity("outlines", self.identity.settings)
