"""Files of a running edit: checkpoints, records and a TensorBoard log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safegen.checkpoints import load_state, save_state
from safegen.editing.probes import Probed, read_probe
from safegen.errors import SafegenError
from safegen.version import code_versions, other_code

RECORDS = "records.jsonl"
PROBES = "probes.jsonl"
CHECKPOINT = "checkpoint.safetensors"
PACKAGES = ("torch", "diffusers", "transformers")
"""Packages, beside safegen, that an edit depends on."""


@dataclass(frozen=True)
class EditRecord:
    """Record of one step.

    Attributes:
        step: steps done, from 1.
        steps: total steps.
        loss: weighted sum of both losses.
        redirect: loss of the unsafe half (L_m).
        preserve: loss of the benign half (L_p).
        multiplier: weight of the preserve loss, lambda_p.
        step_share: share of the full step that was taken.
        seconds: time since the edit began, interruptions excluded.
        seconds_left: remaining time at this run's pace.
    """

    step: int
    steps: int
    loss: float
    redirect: float
    preserve: float
    multiplier: float
    step_share: float
    seconds: float
    seconds_left: float


def read_records(run_folder: Path) -> list[EditRecord]:
    """Read the records in an edit's run folder, earlier interrupted runs included."""
    lines = (run_folder / RECORDS).read_text().splitlines()
    return [EditRecord(**json.loads(line)) for line in lines]


def read_probes(run_folder: Path) -> list[Probed]:
    """Read the findings of an edit's probes; none without a file."""
    path = run_folder / PROBES
    lines = path.read_text().splitlines() if path.exists() else []
    return [read_probe(json.loads(line)) for line in lines]


class RunFolder:
    """Folder that one edit writes and resumes from.

    Args:
        path: folder, made on the first write; None keeps nothing.
        identity: digest of everything that the edit's result depends on.
        writes: whether this process writes.
    """

    def __init__(self, path: Path | None, identity: str, writes: bool = True) -> None:
        self._path = path
        self._identity = identity
        self._writes = writes and path is not None
        self._log: Any = None

    def checkpoint(self) -> Mapping[str, Any] | None:
        """Load the last saved checkpoint; None without one.

        Raises:
            SafegenError: the checkpoint is damaged, belongs to another edit, or other code made it.
        """
        if self._path is None or not (self._path / CHECKPOINT).exists():
            return None
        state = load_state(self._path / CHECKPOINT)
        if state.get("identity") != self._identity:
            raise SafegenError(
                f"{self._path / CHECKPOINT}: belongs to an edit with another model, triplets or "
                "settings; delete the folder or name another run folder"
            )
        if differs := other_code(state.get("code", {}), code_versions(PACKAGES)):
            raise SafegenError(
                f"{self._path / CHECKPOINT}: was made by other code, and an edit is of one: "
                f"{differs}; use the same, delete the folder or name another run folder"
            )
        return state

    @contextmanager
    def recording(self, start: int) -> Iterator[None]:
        """Open the records for the block, keeping the first ``start``."""
        if not self._writes or self._path is None:
            yield
            return
        from torch.utils.tensorboard import SummaryWriter

        self._path.mkdir(parents=True, exist_ok=True)
        for name in (RECORDS, PROBES):
            _keep_until(self._path / name, start)
        with SummaryWriter(self._path / "tensorboard") as self._log:
            yield

    def add(self, record: EditRecord) -> None:
        """Append a record."""
        if not self._writes or self._path is None:
            return
        for name in ("loss", "redirect", "preserve", "multiplier", "step_share"):
            self._log.add_scalar(name, getattr(record, name), record.step)
        self._log.flush()
        with (self._path / RECORDS).open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")

    def add_probe(self, found: Probed) -> None:
        """Append a probe's findings."""
        if not self._writes or self._path is None:
            return
        for measure in found.counts:
            self._log.add_scalar(f"probe/{measure}", found.share(measure), found.step)
        for place, loss in found.redirect.items():
            self._log.add_scalar(f"probe/redirect/{place}", loss, found.step)
        with (self._path / PROBES).open("a") as file:
            file.write(json.dumps(asdict(found)) + "\n")

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint."""
        if self._writes and self._path is not None:
            kept = {"identity": self._identity, "code": code_versions(PACKAGES)}
            save_state(self._path / CHECKPOINT, {**kept, **state})


def _keep_until(path: Path, step: int) -> None:
    """Drop the lines of later steps, which a killed run wrote after its last checkpoint."""
    if path.exists():
        lines = path.read_text().splitlines()
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in kept))
