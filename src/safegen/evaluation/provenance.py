"""Provenance of results: settings and code that a run keeps to, and facts in its table."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from safegen.evaluation.jobs import Inspection
from safegen.evaluation.settings import EvaluationSettings
from safegen.results.sessions import Session, sessions
from safegen.results.store import ResultsStore
from safegen.version import code_versions

PACKAGES = ("torch", "diffusers", "transformers", "onnxruntime", "numpy", "pillow")


def comparable(settings: EvaluationSettings, inspection: Inspection) -> dict[str, Any]:
    """Collect the settings that every picture depends on, beside the code."""
    return {
        "model": dict(inspection.model),
        "device": inspection.device,
        "sampling": asdict(settings.sampling),
        **{
            name: getattr(settings, name)
            for name in ("samples", "seed", "batch", "threads", "precision")
        },
    }


def code() -> dict[str, str]:
    """Identify the code: package versions, and the digest of safegen's source."""
    return {**code_versions(PACKAGES), "python": platform.python_version()}


def provenance(
    settings: EvaluationSettings, inspection: Inspection, store: ResultsStore
) -> dict[str, Any]:
    """Collect all that comparability rests on, and what else a repetition needs."""
    concept, done = settings.concept, sessions(store)
    return {
        **comparable(settings, inspection),
        "model": {"name": settings.model, "hashes": dict(inspection.model)},
        "concept": concept.identity if concept else None,
        "unsafe_names": sorted(settings.unsafe_names),
        "observers": {
            facts.identity.name: dict(facts.identity.settings)
            for facts in inspection.observers.values()
        },
        "attacker": inspection.attacker,
        "real": store.kept("real"),
        "versions": _versions(done, store.kept("versions") or {}),
        "run": _times(done),
    }


def _versions(done: Iterable[Session], before: dict[str, list[str]]) -> dict[str, list[str]]:
    """List all versions that added to a run by package, with those ``before`` it had sessions."""
    found = {name: set(versions) for name, versions in before.items()}
    for session in done:
        for name, value in session.code.items():
            found.setdefault(name, set()).add(value)
    return {name: sorted(versions) for name, versions in found.items()}


def _times(done: list[Session]) -> dict[str, Any]:
    """Return start and end of a run, and whether its last command finished."""
    if not done:
        return {}
    last = done[-1]
    return {"started": done[0].started, "finished": last.finished, "status": last.status}
