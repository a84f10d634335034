"""Settings declared once: frozen dataclasses whose fields carry help, option name and bounds.

Checks, command-line options, settings files and documentation tables are generated from these
fields.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from safegen.errors import SafegenError

MAX_SEED = 2**63 - 1
"""Largest seed that every random generator accepts."""
_WORDS = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
}


@dataclass(frozen=True)
class Bounds:
    """Bounds of a number; ``above`` and ``below`` exclude the bound itself."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None

    def hold(self, number: float) -> bool:
        """Tell whether a number is finite and within the bounds."""
        return (
            math.isfinite(number)
            and (self.minimum is None or number >= self.minimum)
            and (self.maximum is None or number <= self.maximum)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        said = (
            ("of at least", self.minimum),
            ("above", self.above),
            ("at most", self.maximum),
            ("below", self.below),
        )
        return " and ".join(f"{word} {bound}" for word, bound in said if bound is not None)


def setting(
    default: Any = MISSING, help: str = "", option: str = "", panel: str = "", **bounds: float
) -> Any:
    """Declare a field of a settings dataclass.

    Args:
        default: the value if none is given.
        help: one sentence for the command line and the docs; empty makes no option.
        option: name on the command line, with underscores (default: the field's name).
        panel: panel of ``--help`` (default: the group's).
        bounds: bounds of numbers, as in ``Bounds``.
    """
    about = {"help": help, "option": option, "panel": panel, "bounds": Bounds(**bounds)}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Option:
    """One setting, as the command line, settings files and tables show it.

    Attributes:
        name: name on the command line, with underscores.
        group: field that holds the setting's group; empty without a group.
        field: the setting's own field.
        kind: the setting's type.
        help, panel, default, bounds: as declared; ``dataclasses.MISSING`` means no default.
        of: component that the settings are of; empty for options of the command line.
    """

    name: str
    group: str
    field: str
    kind: Any
    help: str
    panel: str
    default: Any
    bounds: Bounds
    of: str = ""

    @property
    def flag(self) -> str:
        """Spelling on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def allowed(self) -> str:
        """Allowed values, in words."""
        kinds = [kind for kind in _alternatives(self.kind) if kind is not type(None)]
        return " or ".join(described(kind, str(self.bounds)) for kind in kinds)

    def read(self, value: Any) -> Any:
        """Convert a text or list from the command line; ``check`` follows later."""
        if isinstance(value, list):
            return tuple(value)
        if not isinstance(value, str):
            return value
        for kind in _alternatives(self.kind):
            if hasattr(kind, "parse"):
                return kind.parse(value)
            if get_origin(kind) is tuple and len(get_args(kind)) == value.count(",") + 1:
                try:
                    return tuple(float(part) for part in value.split(","))
                except ValueError:
                    return value
        return value

    def written(self, value: Any) -> str:
        """Convert a value to its form in a settings file."""
        if value is None:
            return "null"
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    def check(self, value: Any) -> None:
        """Refuse a value of another type or outside the bounds."""
        held = all(self.bounds.hold(number) for number in numbers(value))
        if not (held and fits(value, self.kind)):
            choices = [each for each in get_args(self.kind) if isinstance(each, str)]
            hint = suggestion(value, choices) if isinstance(value, str) else ""
            name = f"{self.of}: {self.field}" if self.of else self.flag
            raise SafegenError(f"{name} must be {self.allowed}, not {value!r}{hint}")


class Settings:
    """Base of settings dataclasses and of their groups.

    Settings ``of`` a component are set in its spec, ``NAME:ARGUMENT,field=value``, and messages
    name the component and the field.
    """

    _of: ClassVar[str] = ""

    def __init_subclass__(cls, of: str = "") -> None:
        cls._of = of or cls._of

    def __post_init__(self) -> None:
        for option in own_options(type(self)):
            option.check(getattr(self, option.field))

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Make settings from the defaults and the values of some options or fields.

        Raises:
            SafegenError: an option is unknown, or its value not allowed.
        """
        groups = _arranged(cls, values)
        defaults: dict[str, Any] = {each.name: each.default for each in fields(cls)}  # type: ignore[arg-type]
        parts = {name: replace(defaults[name], **given) for name, given in groups.items() if name}
        return cls(**groups.get("", {}), **parts)

    def changed(self, **values: Any) -> Self:
        """Copy these settings with the values of some options or fields changed.

        Raises:
            SafegenError: an option is unknown, or its value not allowed.
        """
        groups = _arranged(type(self), values)
        own = groups.pop("", {})
        parts = {name: replace(getattr(self, name), **given) for name, given in groups.items()}
        return replace(self, **own, **parts)  # type: ignore[type-var]


def _arranged(settings: type[Settings], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Sort option values by group and field; texts are converted as on the command line."""
    known = {option.name: option for option in options(settings)}
    others = {each.name for each in fields(settings)} - known.keys()  # type: ignore[arg-type]
    groups: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if name in known:
            option = known[name]
            groups.setdefault(option.group, {})[option.field] = option.read(value)
        elif name in others:
            groups.setdefault("", {})[name] = value
        else:
            raise SafegenError(f"unknown setting {name!r}{suggestion(name, known)}")
    return groups


def options(settings: type[Settings]) -> list[Option]:
    """List all options in declaration order, those of groups included."""
    found: list[Option] = []
    for each in fields(settings):  # type: ignore[arg-type]
        kind = _hints(settings)[each.name]
        if isinstance(kind, type) and issubclass(kind, Settings):
            found += own_options(kind, each.name)
        elif each.metadata.get("help"):
            found.append(_option(each, kind, ""))
    return found


def own_options(settings: type[Settings], group: str = "") -> list[Option]:
    """List the options of a class without those of its groups."""
    declared = [each for each in fields(settings) if "bounds" in each.metadata]  # type: ignore[arg-type]
    hints = _hints(settings)
    return [replace(_option(each, hints[each.name], group), of=settings._of) for each in declared]


def suggestion(name: str, known: Iterable[str]) -> str:
    """Suggest a close known name, as ``; did you mean 'steps'?``; empty without one."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _option(declared: Field[Any], kind: Any, group: str) -> Option:
    about = declared.metadata
    name = about["option"] or declared.name
    panel = about["panel"] or group.capitalize()
    default, bounds = declared.default, about["bounds"]
    return Option(name, group, declared.name, kind, about["help"], panel, default, bounds)


def _hints(settings: Any) -> dict[str, Any]:
    return get_type_hints(settings)


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def described(kind: Any, bounds: str = "") -> str:
    """Describe a type and its bounds in words."""
    if get_origin(kind) is Literal:
        *first, last = get_args(kind)
        return f"{', '.join(first)} or {last}" if first else str(last)
    if get_origin(kind) is tuple:
        each, *others = get_args(kind)
        if others == [Ellipsis]:
            return f"a list, each {described(each)}"
        return f"{1 + len(others)} numbers {bounds}".strip()
    word = _WORDS.get(kind) or str(kind.__doc__).partition(";")[0].lower()
    return f"{word} {bounds}".strip() if kind in (int, float) else word


def fits(value: Any, kind: Any) -> bool:
    """Tell whether a value matches an annotated type."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(value, each) for each in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple and isinstance(value, tuple):
        each = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return len(value) == len(each) and all(map(fits, value, each))
    if kind in (int, float):
        allowed = (int, float) if kind is float else int
        return isinstance(value, allowed) and not isinstance(value, bool)
    return isinstance(value, origin or kind)


def numbers(value: Any) -> Iterator[float]:
    """Yield the numbers in a number or a tuple."""
    for each in value if isinstance(value, tuple) else (value,):
        if isinstance(each, int | float) and not isinstance(each, bool):
            yield each
