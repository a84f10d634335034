"""Jobs that an executor gives to its workers, and their results; all of it can be pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safegen.attacks import Task
from safegen.concepts import Concept
from safegen.models.options import Precision
from safegen.models.sampling import SamplingSettings
from safegen.observers import Observation, ObserverIdentity
from safegen.results.records import FindingRecord, Item
from safegen.results.store import CellKey


@dataclass(frozen=True)
class Attacker:
    """Means of an attacker beside the model.

    Attributes:
        judge: spec of the attacker's detector.
        clip: source of the CLIP model; None without one.
        examples: tasks for what is learned before the attack.
    """

    judge: str
    clip: str | None = None
    examples: tuple[Task, ...] = ()


@dataclass(frozen=True)
class WorkerSettings:
    """Settings that a worker needs before its first job.

    Attributes:
        model: ``lab``, a diffusers folder, a hub id or a single file.
        sampling: sampling settings of the pictures.
        concept: concept that text-dependent defenses avoid, and attackers seek.
        precision: precision of the model's weights.
        threads: number of CPU threads.
        local_files_only: whether to load local files only, without the hub.
        variant, config, allow_pickle, plain_kernels: loading options of the model; see
            ``safegen.models.options``.
        attacker: means of the attacker; None without attacks.
    """

    model: str
    sampling: SamplingSettings
    concept: Concept | None = None
    precision: Precision = "fp32"
    threads: int = 1
    local_files_only: bool = False
    variant: str | None = None
    config: str | None = None
    allow_pickle: bool = False
    plain_kernels: bool = False
    attacker: Attacker | None = None


@dataclass(frozen=True)
class Inspect:
    """Identify the model, the observers and the attacker for the run's record, and try all
    defenses."""

    defenses: tuple[str, ...]
    observers: tuple[str, ...]


@dataclass(frozen=True)
class ObserverFacts:
    """Facts on a worker's observer: what to record, and whether it compares pictures."""

    identity: ObserverIdentity
    compares: bool


@dataclass(frozen=True)
class Inspection:
    """Result of ``Inspect``.

    Attributes:
        model: hashes of all that pictures depend on, by part of the pipeline.
        device: kind of device, such as ``cuda``.
        observers: facts on the observers, by spec.
        notes: safegen's warnings for the user.
        attacker: judge, CLIP model and concept of the attacker; None without one.
    """

    model: Mapping[str, str]
    device: str
    observers: Mapping[str, ObserverFacts]
    notes: tuple[str, ...] = ()
    attacker: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class AttackOrder:
    """Order to make an attack.

    Attributes:
        spec: spec of the attack.
        expected: identity of the attack as JSON values, which the worker's must equal.
    """

    spec: str
    expected: Mapping[str, Any]


@dataclass(frozen=True)
class Draw:
    """Job: generate the pictures of a batch.

    Attributes:
        cell: cell of the pictures.
        defense: spec of the defense.
        expected: identity of the defense as JSON values, which the worker's must equal.
        model: hashes of the model, which the worker's must equal.
        device: kind of device, which the worker's must equal.
        items: items by position, all of one guidance scale.
    """

    cell: CellKey
    defense: str
    expected: Mapping[str, Any]
    model: Mapping[str, str]
    device: str
    items: Mapping[int, Item]


@dataclass(frozen=True)
class Strike(Draw):
    """Job: attack the model for inputs that draw what the items of a batch ask for.

    Attributes:
        attack: attack to make.
        attacker: identity as ``Inspection.attacker``, which the worker's must equal.
    """

    attack: AttackOrder
    attacker: Mapping[str, Any]


@dataclass(frozen=True)
class Drawn:
    """Result of ``Draw`` or ``Strike``.

    Attributes:
        pictures: PNG files in the order of the items, and whether each was blocked.
        notes: safegen's warnings for the user.
        findings: findings of ``Strike``, in the same order; None of ``Draw``.
    """

    pictures: tuple[tuple[bytes, bool], ...]
    notes: tuple[str, ...] = ()
    findings: tuple[FindingRecord, ...] | None = None


@dataclass(frozen=True)
class Picture:
    """Picture to observe, as the bytes of an image file."""

    image: bytes
    text: str = ""
    original: bytes | None = None


@dataclass(frozen=True)
class Look:
    """Job: observe some pictures.

    Attributes:
        observer: spec of the observer.
        expected: identity of the observer, which the worker's must equal.
        pictures: pictures by position.
        cell: cell of the pictures; None for real pictures.
        batch: number of the batch among the real pictures.
    """

    observer: str
    expected: ObserverIdentity
    pictures: Mapping[int, Picture]
    cell: CellKey | None = None
    batch: int = 0


@dataclass(frozen=True)
class Seen:
    """Result of ``Look``: one observation per picture, in order."""

    observations: tuple[Observation, ...] = field(repr=False)


Job = Inspect | Draw | Look
Result = Inspection | Drawn | Seen


@dataclass(frozen=True)
class Failure:
    """Error in a worker, as text since not every exception can be pickled.

    Attributes:
        message: message of an error that the user can mend, or traceback of any other.
        mendable: whether the user can mend the error.
    """

    message: str
    mendable: bool
