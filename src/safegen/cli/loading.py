"""Arguments shared by several commands: MODEL, how it is loaded, and an edit's preset."""

from __future__ import annotations

from typing import Annotated

import typer

from safegen.cli._settings import takes_settings

MODEL_HELP = "'lab', a diffusers folder, a hub id, or a single .safetensors file."
Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
Preset = Annotated[
    str | None,
    typer.Option(help="Preset: robust (also against fine-tuning and DDIM inversion; slower)."),
]
"""Option for the preset of an edit's settings."""


takes_load_options = takes_settings()
"""Decorator: gives a command the options of its ``loading: LoadOptions``, and ``--settings``."""
