"""Statement of a release: what was released, what was measured, and by which code.

An in-toto statement (https://in-toto.io/Statement/v1). Its subjects are the released files with
their SHA-256 digests. Its predicate holds the decision and the evidence, all of which is read
from the run's store.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from safegen.evaluation.scoring import score
from safegen.files import TEMPORARY, file_hash
from safegen.release.decision import Decision
from safegen.release.signing import SIGNATURE, STATEMENT
from safegen.report.tables import summary_of
from safegen.results.cells import StoredCells, all_items, picture_hashes, recorded
from safegen.results.database import IMAGES, STORE_FILE
from safegen.results.records import DefenseRecord, PromptSetRecord, Table
from safegen.results.sessions import sessions
from safegen.results.store import ResultsStore
from safegen.version import code_revision

TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:safegen:release:v1"
PIPELINE, PATCH, POLICY, DECISION, CARD, RUN = (
    "pipeline", "patch.safetensors", "policy.yaml", "decision.json", "README.md", "run",
)  # fmt: skip
PICTURES = f"{RUN}/{IMAGES}"
"""Pictures, which the store lists by their hashes; they need not be published."""
SEALS = tuple(f"{place}{name}" for place in ("", f"{PIPELINE}/") for name in (STATEMENT, SIGNATURE))
"""Statement and signature, and their copies beside the pipeline."""


class Rows(NamedTuple):
    """Which part of a run's store the table is made of.

    Attributes:
        defenses, prompt_sets, observers: names, in the order of the table.
        unsafe_names: names of the concept's objects.
    """

    defenses: list[str]
    prompt_sets: list[str]
    observers: list[str]
    unsafe_names: list[str]

    @classmethod
    def of(cls, table: Table) -> Rows:
        """Name the rows of a table."""
        return cls(
            [each.name for each in table.defenses],
            [each.name for each in table.prompt_sets],
            list(table.provenance["observers"]),
            list(table.provenance["unsafe_names"]),
        )


def statement(
    folder: Path, model: str, policy: Mapping[str, Any], decision: Decision, rows: Rows
) -> bytes:
    """Write the statement of a release folder that is complete but for it.

    Args:
        folder: the release folder.
        model: name of the base model.
        policy: fields of the policy.
        decision: the decision.
        rows: rows of the run's table.
    """
    found = digests(folder)
    value = {
        "_type": TYPE,
        "subject": [{"name": name, "digest": {"sha256": each}} for name, each in found.items()],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "model": model,
            "decision": decision.described(),
            "policy": dict(policy),
            "rows": rows._asdict(),
            "evidence": evidence(folder / RUN, rows)[0],
            "code": code_revision(),
        },
    }
    return (json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a release by its path, without pictures and seals."""
    return {name: file_hash(folder / name) for name in released_files(folder)}


def released_files(folder: Path) -> list[str]:
    """List the files and links of a release, without pictures and seals, sorted."""
    every = files_in(folder)
    return [name for name in every if name not in SEALS and not name.startswith(f"{PICTURES}/")]


def files_in(folder: Path) -> list[str]:
    """List all files and links in a folder by their paths, sorted."""
    found = []
    for place, folders, names in os.walk(folder):
        at = Path(place)
        links = [name for name in folders if (at / name).is_symlink()]
        found += [(at / name).relative_to(folder).as_posix() for name in (*names, *links)]
    return sorted(found)


def evidence(run: Path, rows: Rows) -> tuple[dict[str, Any], Table]:
    """Read what was measured from a run's store, and score it anew.

    The store is read from a copy, so that the run folder stays as it is.

    Returns:
        Base model's hashes and sampling; the defenses with the patch's hash; the observers, among
        them the detector with labels and threshold; the prompt sets, each with the digest of its
        prompts and seeds; the attacker; versions of the code; and all figures. All as JSON
        values. Then the table of the figures.

    Raises:
        SafegenError: the store is damaged, or lacks a part of the table.
    """
    with copied_store(run) as store:
        table = _scored(store, rows)
        observers = recorded(store, "observers")
        told = {
            "settings": recorded(store, "settings"),
            "defenses": {each.name: each.settings for each in table.defenses},
            "observers": {name: observers[name] for name in rows.observers},
            "prompt_sets": {
                each.name: {
                    "role": each.role,
                    **each.identity,
                    "items": items_digest(store, each.name),
                }
                for each in table.prompt_sets
            },
            "code": _distinct(each.code for each in sessions(store)),
            "figures": summary_of(table)["figures"],
        }
    plain: dict[str, Any] = json.loads(json.dumps(told))
    return plain, table


def _distinct(values: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Drop repetitions: how often a run was interrupted does not matter."""
    found: list[Mapping[str, Any]] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def _scored(store: ResultsStore, rows: Rows) -> Table:
    defenses, sets = recorded(store, "defenses"), recorded(store, "prompt_sets")
    names = [DefenseRecord(name, defenses[name]) for name in rows.defenses]
    records = []
    for name in rows.prompt_sets:
        identity = dict(sets[name])
        records.append(PromptSetRecord(name, identity.pop("role"), identity))
    unsafe_names = frozenset(rows.unsafe_names)
    cells = StoredCells(store, rows.defenses, records, rows.observers, unsafe_names)
    return score(cells, names, records)


def items_digest(store: ResultsStore, prompt_set: str) -> str:
    """SHA-256 of the prompts of a set with their ids, seeds and guidance, in its order."""
    digest = sha256()
    for item in all_items(store, prompt_set):
        values = (item.prompt_id, item.sample, item.text, item.seed, item.guidance, item.asked)
        digest.update(json.dumps(values).encode() + b"\n")
    return digest.hexdigest()


def sweep(folder: Path) -> None:
    """Remove what a killed command left in a release folder: unfinished files, and pictures that
    the store does not list."""
    for path in sorted(folder.rglob(f"{TEMPORARY}*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    with copied_store(folder / RUN) as store:
        kept = picture_hashes(store)
    for path in pictures_in(folder):
        if path.stem not in kept:
            path.unlink()


@contextmanager
def copied_store(run: Path) -> Iterator[ResultsStore]:
    """Open a copy of a run's store, so that the run folder stays as it is.

    Raises:
        SafegenError: the store is damaged, or lacks what the block reads.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        shutil.copyfile(run / STORE_FILE, copy / STORE_FILE)
        with ResultsStore(copy) as store, store.readable():
            yield store


def pictures_in(folder: Path) -> Iterator[Path]:
    """Yield the files among a release's pictures."""
    for path in sorted((folder / PICTURES).rglob("*")):
        if not path.is_dir() or path.is_symlink():
            yield path
