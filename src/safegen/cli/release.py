"""``safegen release``: the decision on a release under a policy, with signed evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safegen.cli.loading import Model, takes_load_options
from safegen.models.options import LoadOptions


@takes_load_options
def release(
    model: Model,
    out: Annotated[Path, typer.Option(help="Release folder: pipeline, evidence, statement.")],
    patch: Annotated[
        Path | None,
        typer.Option(help="Patch to release the model with (default: the model as it is)."),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.yaml", help="What to measure, and the bounds (default: safegen's own)."
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.pem", help="Private key that signs the statement (default: unsigned)."
        ),
    ] = None,
    keyless: Annotated[
        bool,
        typer.Option(
            "--keyless",
            help="Sign by your identity (sigstore), without a key; this needs a network.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Number of workers (default: one for each GPU or, where there is none, one).",
            min=1,
        ),
    ] = None,
    *,
    loading: LoadOptions,
) -> None:
    """Decide on the release of a model: measure and attack it, and compare with a policy's bounds.

    The same command resumes an interrupted run. The exit code is 0 if the model passes, 1 if it
    breaks a bound, and 3 if there is not enough evidence. 'safegen verify' checks the result.
    """
    from safegen.cli._console import Console
    from safegen.cli._releasing import Order, check, decide_on
    from safegen.release.policy import DEFAULT, read_policy

    rules = read_policy(policy or DEFAULT)
    order = Order(model, patch, policy or DEFAULT, rules, out, key, keyless, loading, workers)
    check(order)
    decision = decide_on(order, Console())
    raise typer.Exit(decision.code)
