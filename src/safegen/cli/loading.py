"""What several commands take, one text for all: MODEL, how it is loaded, and an edit's preset."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from safegen.models.options import LoadOptions

MODEL_HELP = "'lab', a diffusers folder, a hub id, or a single .safetensors file."
Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
Preset = Annotated[
    str | None,
    typer.Option(help="robust: also against fine-tuning and DDIM run backwards; slower."),
]
"""Of an edit's settings."""


def takes_load_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of ``LoadOptions``, which reach it as its argument ``loading``."""
    own = inspect.signature(command, eval_str=True).parameters
    added = inspect.signature(_options, eval_str=True).parameters
    shown = [parameter for name, parameter in own.items() if name != "loading"]

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        loading = LoadOptions(**{name: given.pop(name) for name in added})
        command(**given, loading=loading)

    shown += [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in added.values()]
    with_options.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    with_options.__annotations__ = {each.name: each.annotation for each in shown}
    return with_options


def _options(
    variant: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of the weight files in a folder or on the hub, such as fp16."
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FOLDER",
            help="Configuration of a single file: sd1, sd2, sd2-base, sdxl, or a diffusers folder; "
            "by default what its weights look like.",
        ),
    ] = None,
    allow_pickle: Annotated[
        bool,
        typer.Option("--allow-pickle", help="Read weights from pickles too (.ckpt, .bin)."),
    ] = False,
    local_files_only: Annotated[bool, typer.Option(help="Never ask the hub.")] = False,
    plain_kernels: Annotated[
        bool,
        typer.Option(
            "--plain-kernels",
            help="Use PyTorch's public interface only: slower, the same but for rounding.",
        ),
    ] = False,
) -> None:
    """The options, as typer reads them."""
