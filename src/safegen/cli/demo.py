"""``safegen demo``: ``safegen harden`` on the lab."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safegen.cli.loading import Preset


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report and the patch.")] = Path(
        "runs/demo"
    ),
    prompts: Annotated[int, typer.Option(help="Prompts per kind.", min=1)] = 64,
    triplets: Annotated[
        int | None,
        typer.Option(
            help="Unsafe pictures to train on, with twice as many benign ones (default: the "
            "usual number for the lab).",
            min=1,
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps of the edit.", min=1)] = None,
    preset: Preset = None,
    seed: Annotated[int, typer.Option(help="Seed of the triplets and the edit.", min=0)] = 0,
) -> None:
    """Edit the lab's model so that it draws no weapons, and measure the edit.

    It is 'safegen harden lab --concept weapons', and resumes as that does.
    """
    from safegen.cli._order import Order
    from safegen.cli.edit import edit_settings
    from safegen.cli.harden import run
    from safegen.concepts import load_concept

    given = {"seed": seed} if steps is None else {"seed": seed, "steps": steps}
    edit = edit_settings(preset, given)
    run(Order("lab", load_concept("weapons"), out, edit, pairs=triplets, count=prompts))
