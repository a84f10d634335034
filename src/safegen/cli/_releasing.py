"""Stages of ``safegen release``: measurement, decision, report, pipeline and statement.

The measurement resumes. What follows it is made anew by every command, and the statement last, so
a folder with a statement is complete.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.cli import _runs as runs
from safegen.cli._console import Console
from safegen.errors import SafegenError
from safegen.evaluation.settings import EvaluationSettings
from safegen.files import TEMPORARY, file_hash, write_atomically
from safegen.models.options import LoadOptions
from safegen.profiles import Profile, profile_of
from safegen.release.policy import SAFEGEN, Policy
from safegen.release.signing import SIGNATURE, STATEMENT
from safegen.release.statement import (
    CARD,
    DECISION,
    PATCH,
    PIPELINE,
    POLICY,
    RUN,
    SEALS,
    Rows,
    statement,
    sweep,
)
from safegen.results.records import ORIGINAL

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

    from safegen.release.decision import Decision

_CONTENTS = {PIPELINE, PATCH, POLICY, DECISION, CARD, RUN, STATEMENT, SIGNATURE}


@dataclass(frozen=True)
class Order:
    """What is to be released.

    Attributes:
        model: the model, as the user named it.
        patch: file of the patch; None for the model as it is.
        policy_file: file of the policy.
        policy: the policy.
        out: release folder.
        key: file of the private key.
        keyless: whether an identity signs instead; without both, the statement is unsigned.
        loading: options of loading the model.
        workers: number of workers.
    """

    model: str
    patch: Path | None
    policy_file: Path
    policy: Policy
    out: Path
    key: Path | None
    keyless: bool
    loading: LoadOptions
    workers: int | None = None

    @property
    def released(self) -> str:
        """Name of the released model's row."""
        return SAFEGEN if self.patch else ORIGINAL

    def signer(self) -> Any:
        """Prepare what signs the statement; None if nobody does.

        Raises:
            SafegenError: the key cannot be used, or sigstore cannot be reached.
        """
        from safegen.release.signing import keyless, with_key

        return with_key(self.key) if self.key else keyless() if self.keyless else None

    def evaluation(self, patch: Path | None) -> EvaluationSettings:
        """Settings of the measurement, with the patch at a path."""
        return self.policy.evaluation(self.model, patch, self.loading)


def check(order: Order) -> None:
    """Check, before any work, all that the order names, and that the folder is its own.

    Raises:
        SafegenError: something is unknown or missing, or the folder holds something else.
    """
    from safegen.cli._options import check_out

    out = order.out
    check_out(out, order.model, order.patch, order.policy_file)
    if out.is_file() or "+" in str(out):
        raise SafegenError(f"--out {out}: name a folder, without a + in its path")
    if order.key and order.keyless:
        raise SafegenError("--key and --keyless: a statement has one signature; leave one out")
    order.signer()  # a key that cannot be used is told before hours of work
    there = {path.name for path in out.iterdir()} if out.exists() else set()
    others = [name for name in there - _CONTENTS if not name.startswith(TEMPORARY)]
    if others or (there and RUN not in there):
        raise SafegenError(
            f"{out}: holds other things than a release; give another folder with --out"
        )
    copied = out / PATCH
    if copied.exists() and (order.patch is None or file_hash(copied) != file_hash(order.patch)):
        raise SafegenError(
            f"{out}: is the release of another patch; give another folder with --out"
        )
    bounds = [bound for bound, _ in order.policy.requirements]
    bounds = [replace(bound, defense=bound.defense or order.released) for bound in bounds]
    runs.check_requirements(bounds, order.evaluation(order.patch))


def decide_on(order: Order, console: Console) -> Decision:
    """Do all stages that the release folder lacks; returns the decision."""
    from safegen.cli import _showing as showing
    from safegen.evaluation.executors import ExecutorOptions
    from safegen.release.decision import decide
    from safegen.release.signing import sign

    out = order.out
    for name in SEALS:  # it would tell of a measurement that goes on
        (out / name).unlink(missing_ok=True)
    (out / RUN).mkdir(parents=True, exist_ok=True)
    write_atomically(out / POLICY, order.policy_file.read_bytes())
    if order.patch is not None:
        write_atomically(out / PATCH, order.patch.read_bytes())
    settings = order.evaluation(out / PATCH if order.patch else None)
    usual = profile_of(order.model) or Profile()
    workers = order.workers or (runs.cores() if usual.small else None)
    table = runs.run(settings, out / RUN, "local", ExecutorOptions(workers), console)
    decision = decide(order.policy, table, order.released)
    showing.write(table, settings, out / RUN, console, outcomes=decision.findings)
    write_atomically(out / DECISION, json.dumps(decision.described(), indent=2) + "\n")
    _save_pipeline(order, _card(order, decision))
    sweep(out)
    told = statement(out, order.model, order.policy.described(), decision, Rows.of(table))
    signer = order.signer()
    seals = {STATEMENT: told} | ({SIGNATURE: sign(told, signer)} if signer else {})
    for name in reversed(SEALS):
        if (content := seals.get(Path(name).name)) is not None:
            write_atomically(out / name, content)
    _tell(order, decision, console)
    return decision


def _card(order: Order, decision: Decision) -> ModelCard:
    from safegen.report.card import CardDecision
    from safegen.report.export_card import export_card

    return export_card(
        order.model,
        order.out / PATCH if order.patch else None,
        order.out / RUN / "summary.json",
        decision=CardDecision(decision.verdict, tuple(map(str, decision.findings))),
    )


def _save_pipeline(order: Order, card: ModelCard) -> None:
    """Write the released pipeline with its card."""
    from safegen.cli.apply import hardened
    from safegen.models.loading import load_pipeline
    from safegen.patches.folder import save_pipeline
    from safegen.patches.patch import Patch

    write_atomically(order.out / CARD, str(card))
    if order.patch is None:
        pipeline = load_pipeline(order.model, device="cpu", **vars(order.loading))
    else:
        pipeline = hardened(order.model, Patch.load(order.out / PATCH), order.loading)
    place = order.out / PIPELINE
    shutil.rmtree(place, ignore_errors=True)  # another decision may have been on its card
    save_pipeline(pipeline, place, card=card)


def _tell(order: Order, decision: Decision, console: Console) -> None:
    for finding in decision.findings:
        console.print(str(finding))
    signed = "signed" if order.key or order.keyless else "not signed: give --key to sign it"
    console.print(f"released pipeline: {order.out / PIPELINE}; statement: {signed}")
    console.print(f"decision: {decision.verdict}")
