"""``safegen verify``: check a release without a network: files, signature and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verify(
    folder: Annotated[Path, typer.Argument(help="Release folder, or its pipeline's folder alone.")],
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.pub", help="Publisher's public key (default: no signature is checked)."
        ),
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Publisher's identity, of a release that was signed --keyless."
        ),
    ] = None,
    issuer: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Who vouches for the identity, an OpenID Connect issuer."),
    ] = None,
) -> None:
    """Check a release: files and signature, and that its figures are those of its run.

    The exit code is 1 if anything differs from the statement, each named on a line.
    """
    from safegen.cli._console import Console
    from safegen.errors import SafegenError
    from safegen.release.signing import Identity
    from safegen.release.verification import verify as check

    if bool(identity) != bool(issuer) or (key and identity):
        raise SafegenError("give --key, or --identity with --issuer, to check the signature")
    console = Console()
    found = check(folder, Identity(identity, issuer) if identity and issuer else key)
    for problem in found.problems:
        console.print(problem)
    if found.problems:
        many = "" if len(found.problems) == 1 else "s"
        console.print(f"{folder}: does not verify ({len(found.problems)} problem{many})")
        raise typer.Exit(1)
    console.print(f"checked: {'; '.join(found.checked)}")
    console.print(f"{folder}: verifies; decision: {found.decision}")
