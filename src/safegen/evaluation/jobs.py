"""What an executor hands to its workers, and what comes back; all of it can be pickled."""

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
    """What an attacker has beside the model.

    Attributes:
        judge: spec of the detector.
        clip: source of the CLIP model; none if None.
        examples: for what is learned beforehand.
    """

    judge: str
    clip: str | None = None
    examples: tuple[Task, ...] = ()


@dataclass(frozen=True)
class WorkerSettings:
    """All that a worker has to know before its first job.

    Attributes:
        model: ``lab``, a diffusers folder, a hub id or a single file.
        sampling: how pictures are sampled.
        concept: what text-dependent defenses are told to avoid, and attackers are after.
        precision: of the model's weights.
        threads: of the processor.
        local_files_only: never ask the hub.
        variant, config, allow_pickle, plain_kernels: how the model is loaded; see
            ``safegen.models.options``.
        attacker: who makes the attacks, if any are made.
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
    """Say what a run records of the model, the observers and the attacker, and try all defenses
    on."""

    defenses: tuple[str, ...]
    observers: tuple[str, ...]


@dataclass(frozen=True)
class ObserverFacts:
    """An observer as a worker found it: what to record, and whether it compares."""

    identity: ObserverIdentity
    compares: bool


@dataclass(frozen=True)
class Inspection:
    """What came of ``Inspect``.

    Attributes:
        model: hashes of all that pictures depend on, by the pipeline's part.
        device: the kind of device, such as ``cuda``.
        observers: by spec.
        notes: warnings of safegen, for the user.
        attacker: its judge, its CLIP model, and what it is after; None without an attacker.
    """

    model: Mapping[str, str]
    device: str
    observers: Mapping[str, ObserverFacts]
    notes: tuple[str, ...] = ()
    attacker: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class AttackOrder:
    """Which attack to make.

    Attributes:
        spec: of the attack.
        expected: the attack's identity, as JSON values, which the worker's must be.
    """

    spec: str
    expected: Mapping[str, Any]


@dataclass(frozen=True)
class Draw:
    """Generate the pictures of a batch.

    Attributes:
        cell: where they belong.
        defense: its spec.
        expected: the defense's identity, as JSON values, which the worker's must be.
        model: the model's hashes, which the worker's must be.
        device: the kind of device, which the worker's must be.
        items: by position; all of one guidance.
    """

    cell: CellKey
    defense: str
    expected: Mapping[str, Any]
    model: Mapping[str, str]
    device: str
    items: Mapping[int, Item]


@dataclass(frozen=True)
class Strike(Draw):
    """Look for inputs that bring out what the items of a batch ask for.

    Attributes:
        attack: that looks for them.
        attacker: what the worker's must be, as ``Inspection.attacker``.
    """

    attack: AttackOrder
    attacker: Mapping[str, Any]


@dataclass(frozen=True)
class Drawn:
    """What came of ``Draw`` or ``Strike``.

    Attributes:
        pictures: PNG files in the order of the items, and whether each was blocked.
        notes: warnings of safegen, for the user.
        findings: of ``Strike``, in the same order; None of ``Draw``.
    """

    pictures: tuple[tuple[bytes, bool], ...]
    notes: tuple[str, ...] = ()
    findings: tuple[FindingRecord, ...] | None = None


@dataclass(frozen=True)
class Picture:
    """A picture to observe, as the bytes of an image file."""

    image: bytes
    text: str = ""
    original: bytes | None = None


@dataclass(frozen=True)
class Look:
    """Observe some pictures.

    Attributes:
        observer: its spec.
        expected: its identity, which the worker's must be.
        pictures: by position.
        cell: where they belong; None for real pictures.
        batch: their number among the real ones.
    """

    observer: str
    expected: ObserverIdentity
    pictures: Mapping[int, Picture]
    cell: CellKey | None = None
    batch: int = 0


@dataclass(frozen=True)
class Seen:
    """What came of ``Look``: one observation a picture, in their order."""

    observations: tuple[Observation, ...] = field(repr=False)


Job = Inspect | Draw | Look
Result = Inspection | Drawn | Seen


@dataclass(frozen=True)
class Failure:
    """An error in a worker, as text since not every exception can be pickled.

    Attributes:
        message: of an error that the user can mend, or the traceback of any other.
        mendable: which of the two.
    """

    message: str
    mendable: bool
