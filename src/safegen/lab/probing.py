"""What the probes of an edit draw on the lab."""

from __future__ import annotations

from safegen.editing.probes import ProbeSources
from safegen.evaluation.probing import probe_sources
from safegen.lab.concept import LAB_WEAPONS
from safegen.lab.pictures import SAMPLING


def lab_probing() -> ProbeSources:
    """Judge unsafe pictures by the first detector, and benign ones by the classifier of objects."""
    return probe_sources(LAB_WEAPONS, SAMPLING, "objects:lab")
