"""Command-line options and settings files, made from what settings declare."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from safegen.errors import SafegenError
from safegen.files import read_mapping
from safegen.settings import Option, Settings, options, suggestion

Command = Callable[..., None]
LONGEST_METAVAR = 21
"""Length in characters above which a placeholder is dropped; the help names the choices too."""


def takes_settings(**kinds: type[Settings]) -> Callable[[Command], Command]:
    """Give a command the options of settings, and ``--settings``, a file that sets any option.

    An argument of the command whose type is a settings class gets these settings.

    Args:
        kinds: settings class by the argument that receives only the given values, by option.
    """

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters.values()
        whole = {each.name: each.annotation for each in own if _is_settings(each.annotation)}
        both = {**kinds, **whole}
        every = {each.name: both[each.name] for each in own if each.name in both}
        added = {name: [_parameter(each) for each in options(kind)] for name, kind in every.items()}

        @functools.wraps(command)
        def with_options(**given: Any) -> None:
            del given["settings"]
            told: dict[str, Any] = {name: _given(given, each) for name, each in added.items()}
            told.update({name: kind.of(**told[name]) for name, kind in whole.items()})
            command(**given, **told)

        shown = [each for each in own if each.name not in every]
        shown += [each for parameters in added.values() for each in parameters]
        shown.append(_FILE)
        with_options.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        with_options.__annotations__ = {each.name: each.annotation for each in shown}
        return with_options

    return decorate


def _is_settings(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Settings)


def _given(values: dict[str, Any], parameters: list[inspect.Parameter]) -> dict[str, Any]:
    """Remove the parameters' values from a command's, and return those that were given."""
    taken = {each.name: values.pop(each.name) for each in parameters}
    return {name: value for name, value in taken.items() if value not in (None, [])}


def _parameter(option: Option) -> inspect.Parameter:
    """Make the typer argument of a setting."""
    kind, metavar = _on_command_line(option.kind)
    declared = typer.Option(
        option.flag,
        help=_help(option),
        metavar=metavar,
        show_default=False,  # the value of "not given"
        rich_help_panel=option.panel or None,
    )
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, declared],
    )


def _help(option: Option) -> str:
    """Write a setting's help, with its default."""
    if option.default in (None, (), "", False, MISSING):
        return option.help
    return f"{option.help.removesuffix('.')} (default: {option.written(option.default)})."


def _on_command_line(kind: Any) -> tuple[Any, str | None]:
    """Choose the type that typer reads, and the value's placeholder in the help."""
    kinds = [each for each in get_args(kind) if each is not type(None)]
    if type(None) in get_args(kind):
        return _on_command_line(kinds[0])
    if get_origin(kind) is Literal:
        metavar = "|".join(kinds)
        return str, metavar if len(metavar) <= LONGEST_METAVAR else None
    if get_origin(kind) is tuple:
        return (list[str], None) if Ellipsis in kinds else (str, "LOW,HIGH")
    return (str, "NAME=SHARE") if hasattr(kind, "parse") else (kind, None)


def _read_file(context: typer.Context, path: Path | None) -> None:
    """Make a settings file's values the defaults of the command's options."""
    if path is None:
        return
    usual = (each for each in context.command.params if not each.is_eager)
    known: dict[str, Any] = {str(each.name): each for each in usual}
    values = dict(context.default_map or {})
    for name, (read, line) in read_mapping(path, "steps: 500").items():
        place, value = f"{path}, line {line}: ", _as_given(read)
        option = known.get(name)
        if option is None:
            raise SafegenError(f"{place}unknown setting {name!r}{suggestion(name, known)}")
        values[name] = [value] if option.multiple and not isinstance(value, list) else value
        try:
            option.process_value(context, values[name])
        except typer.BadParameter as error:
            raise SafegenError(f"{place}{name}: {value!r}: {error.message}") from error
    context.default_map = values


def _as_given(value: Any) -> Any:
    """Convert to the command line's form: ``name=0.5,…``, ``0.2,1.6``, or a list of texts."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={share}" for name, share in value.items())
    if isinstance(value, list) and not any(isinstance(each, str) for each in value):
        return ",".join(map(str, value))
    return value


_FILE = inspect.Parameter(
    "settings",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.yaml",
            callback=_read_file,
            is_eager=True,
            help="Values of any of these options, by name; the command line takes precedence.",
        ),
    ],
)
