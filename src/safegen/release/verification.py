"""Verification of a release: files, signature, and figures against the run's store; offline.

Nothing here imports torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safegen.errors import SafegenError
from safegen.files import check_regular, file_hash
from safegen.release.decision import decide
from safegen.release.policy import Policy, read_policy
from safegen.release.signing import (
    SIGNATURE,
    STATEMENT,
    BrokenSealError,
    Identity,
    check_signature,
)
from safegen.release.statement import (
    DECISION,
    PATCH,
    PICTURES,
    PIPELINE,
    POLICY,
    PREDICATE_TYPE,
    RUN,
    TYPE,
    Rows,
    copied_store,
    evidence,
    files_in,
    pictures_in,
    released_files,
)
from safegen.results.cells import picture_hashes
from safegen.results.records import Table
from safegen.results.store import difference

TOLERANCE = 1e-9
"""Relative difference of figures that other machines' arithmetic may bring."""
_ODD = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""Errors of JSON in another form than the expected one."""


@dataclass(frozen=True)
class Verification:
    """What was found in a release.

    Attributes:
        problems: all that is not as the statement says, a line each; empty if it verifies.
        checked: what was checked, a line each.
        decision: decision that the statement tells; empty if it cannot be read.
    """

    problems: tuple[str, ...]
    checked: tuple[str, ...] = ()
    decision: str = ""


def verify(folder: Path, publisher: Path | Identity | None = None) -> Verification:
    """Verify a release folder, or its published pipeline alone.

    Args:
        folder: release folder, or the pipeline's folder, which has the statement too.
        publisher: file of the publisher's public key (PEM), or the identity that signed without
            a key; None leaves the signature unchecked.

    Raises:
        SafegenError: the folder is no release, or the key cannot be used.
    """
    seal = folder / STATEMENT
    if not folder.is_dir():
        raise SafegenError(f"{folder}: no such folder; give the one that 'safegen release' wrote")
    if not seal.exists():
        raise SafegenError(
            f"{folder}: has no {STATEMENT}, so it is no release; give the folder that 'safegen "
            "release' wrote, or its pipeline"
        )
    check_regular(seal)
    data, signature = seal.read_bytes(), _optional(folder / SIGNATURE)
    try:
        if publisher is not None:
            check_signature(data, signature, publisher)
        told = _parsed(data)
    except BrokenSealError as error:
        return Verification((str(error),))
    part = (folder / "model_index.json").exists()
    problems = [*_files(folder, told["subject"], part)]
    checked = [_signature(signature, publisher), f"{len(told['subject'])} files"]
    if not part:
        problems += _seals(folder)
        problems += _pictures(folder)
        if not problems:  # figures of changed files mean nothing
            problems += _claims(folder, told)
            checked.append("figures and decision, computed anew from the run's store")
    return Verification(tuple(problems), tuple(checked), told["predicate"]["decision"]["decision"])


def _optional(path: Path) -> bytes | None:
    """Read a file; None if it is not there."""
    if not path.exists():
        return None
    check_regular(path)
    return path.read_bytes()


def _parsed(data: bytes) -> dict[str, Any]:
    """Parse a statement, with its subjects as digests by path.

    Raises:
        BrokenSealError: the file is no statement of a release.
    """
    try:
        told: dict[str, Any] = json.loads(data)
        if (told["_type"], told["predicateType"]) != (TYPE, PREDICATE_TYPE):
            raise ValueError(f"it is of the type {told['predicateType']}")
        subjects = {each["name"]: each["digest"]["sha256"] for each in told["subject"]}
        str(told["predicate"]["decision"]["decision"])
    except _ODD as error:
        raise BrokenSealError(STATEMENT, f"is no statement of a release ({error})") from error
    return {**told, "subject": subjects}


def _signature(signature: bytes | None, publisher: Path | Identity | None) -> str:
    if publisher is not None:
        return f"signature of {publisher}"
    if signature is not None:
        return "no signature: give the publisher's public key with --key"
    return "no signature: nobody signed this release"


def _files(folder: Path, digests: Mapping[str, str], part: bool) -> Iterator[str]:
    """Compare the files with the statement's; of the pipeline alone if ``part``."""
    prefix = f"{PIPELINE}/" if part else ""
    own = {name: each for name, each in digests.items() if name.startswith(prefix)}
    told = {name.removeprefix(prefix): each for name, each in own.items()}
    there = files_in(folder) if part else released_files(folder)
    there = [name for name in there if name not in (STATEMENT, SIGNATURE)]
    yield from (f"{name}: is missing" for name in told if name not in there)
    for name in there:
        path = folder / name
        if name not in told:
            yield f"{name}: is not in the statement"
        elif path.is_symlink() or not path.is_file():
            yield f"{name}: is a link, no file"
        elif file_hash(path) != told[name]:
            yield f"{name}: was changed"


def _seals(folder: Path) -> Iterator[str]:
    """Compare the pipeline's copies of statement and signature."""
    for name in (STATEMENT, SIGNATURE):
        own, copy = folder / name, folder / PIPELINE / name
        if copy.is_symlink():
            yield f"{PIPELINE}/{name}: is a link, no file"
        elif own.exists() != copy.exists():
            yield f"{name if copy.exists() else f'{PIPELINE}/{name}'}: is missing"
        elif own.exists() and copy.read_bytes() != own.read_bytes():
            yield f"{PIPELINE}/{name}: differs from {name}"


def _pictures(folder: Path) -> Iterator[str]:
    """Compare the pictures, if they are there, with those that the store lists."""
    if not (folder / PICTURES).exists():
        return
    try:
        with copied_store(folder / RUN) as store:
            missing = picture_hashes(store)
    except (SafegenError, OSError) as error:
        yield f"{PICTURES}: cannot be compared with the run's store ({error})"
        return
    for path in pictures_in(folder):
        name = path.relative_to(folder).as_posix()
        if path.stem not in missing or name != f"{PICTURES}/{path.stem[:2]}/{path.stem}.png":
            yield f"{name}: is no picture of the run"
            continue
        missing.discard(path.stem)
        if path.is_symlink() or file_hash(path) != path.stem:
            yield f"{name}: was changed"
    yield from (f"{PICTURES}/{each[:2]}/{each}.png: is missing" for each in sorted(missing))


def _claims(folder: Path, told: Mapping[str, Any]) -> Iterator[str]:
    """Compare what the statement tells with the run's store, policy and patch."""
    predicate = told["predicate"]
    try:
        rows = Rows(**predicate["rows"])
        found, table = evidence(folder / RUN, rows)
        policy = read_policy(folder / POLICY)
        claimed, summed = predicate["evidence"], _json(folder / RUN / "summary.json")
        yield from _figures("the statement", claimed["figures"], found["figures"])
        yield from _figures(f"{RUN}/summary.json", summed["figures"], found["figures"])
        rest = ({**each, "figures": None} for each in (claimed, found))
        yield from _same("the statement's evidence", "the run's store", *rest)
        yield from _decision(folder, predicate, policy, table)
        yield from _patch(told, found)
    except (SafegenError, OSError, *_ODD) as error:
        yield f"{RUN}: cannot be compared with the statement ({error})"


def _figures(where: str, claimed: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """Name each figure that is another than that of the run's store."""
    one, other = dict(_flat(claimed)), dict(_flat(found))
    for place in sorted({*one, *other}):
        says, gives = one.get(place), other.get(place)
        if not _close(says, gives):
            yield f"{where}: {place} is {says}, and the run's store gives {gives}"


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield place, value
        return
    for name, each in value.items():
        yield from _flat(each, f"{place} / {name}" if place else name)


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(one == other)


def _decision(
    folder: Path, predicate: Mapping[str, Any], policy: Policy, table: Table
) -> Iterator[str]:
    """Decide anew, and compare with the statement and the file."""
    claimed = predicate["decision"]
    anew = json.loads(json.dumps(decide(policy, table, claimed["released"]).described()))
    if anew["decision"] != claimed["decision"]:
        yield (
            f"the statement's decision is {claimed['decision']}, and policy and run give "
            f"{anew['decision']}"
        )
    yield from _same(DECISION, "the statement's decision", _json(folder / DECISION), claimed)
    attacks = sum(bool(each.attack) for each in table.prompt_sets)
    if attacks != len(policy.attacks):
        yield f"{POLICY}: lists {len(policy.attacks)} attacks, and the run tells of {attacks}"
    told = json.loads(json.dumps(policy.described()))
    yield from _same(POLICY, "the statement's policy", told, predicate["policy"])


def _patch(told: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """Check that the released row is that of the released patch."""
    released = told["predicate"]["decision"]["released"]
    measured = found["defenses"][released].get("file_hash")
    if measured != told["subject"].get(PATCH):
        yield f"{PATCH}: is not the patch that was measured"


def _same(what: str, than: str, one: Any, other: Any) -> Iterator[str]:
    if one != other:
        yield f"{what} differs from {than}: it {difference(other, one)}"


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
