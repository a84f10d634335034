"""Observer of the place that each picture shows, for place retention."""

from __future__ import annotations

from collections.abc import Sequence

from safegen.lab.classifier import place_scores
from safegen.lab.objects_observer import ObjectObserver
from safegen.lab.world.backgrounds import BACKGROUNDS
from safegen.observers import Observation, Sight
from safegen.observers._common import pictures


class PlaceObserver(ObjectObserver):
    """Records ``asked``: the score in [0, 1] of the place that the text asks for; None without."""

    name = "places"

    def observe(self, sights: Sequence[Sight]) -> list[Observation]:
        """See ``Observer.observe``."""
        found = place_scores(pictures(sights))
        asked = [_asked_place(sight.text) for sight in sights]
        return [
            Observation({"asked": None if place is None else float(scores[place])})
            for place, scores in zip(asked, found, strict=True)
        ]


def _asked_place(text: str) -> str | None:
    return next((name for name, place in BACKGROUNDS.items() if place.text in text), None)
