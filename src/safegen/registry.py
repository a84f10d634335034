"""A lazy registry: names are listed without importing their modules.

Built-in entries are the modules of a package, one file an entry, each with a decorated factory
or class; entries of other packages come through entry points of the group
``safegen.<kind>`` (for example ``safegen.detectors``). Listing names imports nothing.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType, NoneType, UnionType
from typing import (
    Any,
    Generic,
    NewType,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from safegen.errors import SafegenError, first_line

T = TypeVar("T")
Component = TypeVar("Component")
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_OPTION = re.compile(r"(.*),([a-z_]+)=([^,]*)", re.DOTALL)


class Registry(Generic[T]):
    """Map names to factories of one kind of component.

    Args:
        kind: plural noun for messages and the entry-point group.
        package: the package whose modules are the built-in entries; a module ``safety_filter``
            is the entry ``safety-filter`` and must register exactly that name. None if all
            entries come through entry points.
        shared: modules of the package that are no entries.
    """

    def __init__(self, kind: str, package: str | None = None, shared: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.package = package
        self.shared = shared
        self._loaded: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorate a factory or class to register it under a name; a duplicate name is an error."""

        def decorate(entry: T) -> T:
            if name in self._loaded:
                raise ValueError(f"{self.kind}: the name {name!r} is registered already")
            self._loaded[name] = entry
            return entry

        return decorate

    def names(self) -> list[str]:
        """List all names, sorted; imports no entry."""
        points = (point.name for point in self._entry_points())
        return sorted({*self._loaded, *self._modules(), *points})

    def built_in(self) -> list[str]:
        """List the package's own names, sorted; imports no entry."""
        return sorted(self._modules())

    def get(self, name: str) -> T:
        """Import the entry of a name.

        Raises:
            SafegenError: the name is unknown (the message suggests a close one), or more than
                one package gives it.
        """
        modules = self._modules()
        points = [point for point in self._entry_points() if point.name == name]
        if len(points) + (name in modules) > 1:
            raise SafegenError(self._ambiguous(name, points))
        if name in self._loaded:
            return self._loaded[name]
        if name in modules:
            return self._import(modules[name], name)
        if points:
            return self._load(points[0])
        raise SafegenError(self._unknown(name))

    def _import(self, module: str, name: str) -> T:
        importlib.import_module(module)
        if name not in self._loaded:
            raise ValueError(f"{self.kind}: the module {module} does not register {name!r}")
        return self._loaded[name]

    def _load(self, point: EntryPoint) -> T:
        try:
            return cast(T, point.load())
        except Exception as error:  # another package may raise any class
            raise SafegenError(
                f"{self.kind}: {point.name!r} cannot be loaded from {point.value} "
                f"({first_line(error)}); mend or uninstall the package that gives it"
            ) from error

    def _modules(self) -> dict[str, str]:
        if self.package is None:
            return {}
        package = importlib.import_module(self.package)
        found = pkgutil.iter_modules(package.__path__)
        return {
            module.name.replace("_", "-"): f"{self.package}.{module.name}"
            for module in found
            if not module.name.startswith("_") and module.name not in self.shared
        }

    def _entry_points(self) -> set[EntryPoint]:
        # A set, since a package found twice on the path lists its entry points twice.
        return set(entry_points(group=f"safegen.{self.kind}"))

    def _ambiguous(self, name: str, points: list[EntryPoint]) -> str:
        others = " and ".join(sorted(point.value for point in points))
        return (
            f"the name {name!r} among {self.kind} is taken more than once, by {others}; "
            "uninstall all packages but one that give it"
        )

    def _unknown(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.names(), n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        return f"unknown name {name!r} among {self.kind}. {hint}Known: {', '.join(self.names())}"


Spec = NewType("Spec", str)
"""An argument that is itself a spec and owns the options: ``detector:lab,threshold=0.3``."""


def with_options(spec: str, **values: object) -> str:
    """Set options of a spec, in the place of its own of these names."""
    for name, value in values.items():
        spec = re.sub(rf",{name}=[^,]*", "", spec) + f",{name}={value}"
    return spec


def takes(settings: type) -> Callable[[T], T]:
    """Decorate a factory so that its ``**options`` are the fields of a settings dataclass.

    The class is kept as the factory's attribute ``settings``. Fields with the name of one of the
    factory's own parameters are left out.
    """

    def decorate(factory: T) -> T:
        own = inspect.signature(cast(Any, factory), eval_str=True).parameters
        shown = [each for each in own.values() if each.kind is not each.VAR_KEYWORD]
        kinds = get_type_hints(settings)
        shown += [
            each.replace(kind=each.KEYWORD_ONLY, annotation=kinds[name])
            for name, each in inspect.signature(settings).parameters.items()
            if name not in own
        ]
        factory.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        factory.__annotations__ = {each.name: each.annotation for each in shown}
        factory.settings = settings  # type: ignore[attr-defined]
        return factory

    return decorate


def name_of(spec: str) -> str:
    """Return the registered name at the start of a spec."""
    return re.split("[:,]", spec, maxsplit=1)[0]


def create(
    registry: Registry[Callable[..., Component]],
    spec: str,
    example: str,
    options: Mapping[str, Any] = _NOTHING,
    context: Mapping[str, Any] = _NOTHING,
    usual: Mapping[str, Any] = _NOTHING,
) -> Component:
    """Call the factory of a spec ``name:argument,option=value``; only the name is required.

    Options become numbers, truth values or tuples (``a+b``) by the factory's annotations;
    ``all`` becomes None where the annotation is an optional whole number.

    Args:
        registry: the registry of factories.
        spec: a registered name; what follows a colon is the factory's one positional argument.
        example: a spec with an argument, for error messages.
        options: keyword arguments that the factory must accept; they override the spec's.
        context: further keyword arguments, passed to factories with such parameters; a spec
            cannot set them.
        usual: default keyword arguments, which the spec's options override.

    Raises:
        SafegenError: the name or an option is unknown, an option's value has the wrong type, or
            the argument is missing or not accepted.
    """
    name = name_of(spec)
    factory = registry.get(name)
    signature = inspect.signature(factory)
    where = f"{registry.kind} {spec!r}"
    argument, texts = _parse(where, spec, factory)
    told = {key: value for key, value in context.items() if key in signature.parameters}
    keywords = {**usual, **_values(where, factory, texts, context), **options, **told}
    positional = () if argument is None else (_argument(where, argument, signature),)
    try:
        if argument == "":
            raise TypeError("nothing follows the colon")
        signature.bind(*positional, **keywords)
    except TypeError as error:
        raise SafegenError(
            f"{where}: {error}; what {name} needs follows a colon, as in {example}"
        ) from error
    return factory(*positional, **keywords)


def _parse(where: str, spec: str, factory: Callable[..., Any]) -> tuple[str | None, dict[str, str]]:
    """Split a spec into its argument and its options, from the right."""
    first = next(iter(inspect.signature(factory).parameters.values()), None)
    options: dict[str, str] = {}
    if first is None or first.annotation not in (Spec, "Spec"):
        while match := _OPTION.fullmatch(spec):
            spec, option, value = match.groups()
            if option in options:
                raise SafegenError(f"{where}: gives {option} twice; keep one")
            options[option] = value
    _, colon, argument = spec.partition(":")
    return argument if colon else None, options


def _argument(where: str, text: str, signature: inspect.Signature) -> Any:
    """Convert a spec's argument to a number if the factory's first parameter is annotated so."""
    first = next(iter(signature.parameters.values()), None)
    if not text or first is None or first.annotation not in (int, float):
        return text
    return _value(f"{where}: {first.name}", text, first.annotation)


def _values(
    where: str, factory: Callable[..., Any], texts: Mapping[str, str], context: Mapping[str, Any]
) -> dict[str, Any]:
    """Convert a spec's options to the factory's types."""
    if not texts:
        return {}
    parameters = list(inspect.signature(factory).parameters.values())
    if parameters and parameters[0].kind is not inspect.Parameter.KEYWORD_ONLY:
        del parameters[0]  # the argument
    known = [each.name for each in parameters if each.name not in context]
    for option in texts:
        if option not in known:
            close = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {close[0]!r}? known" if close else "known"
            raise SafegenError(
                f"{where}: unknown option {option!r}; {hint}: {', '.join(known) or 'none'}"
            )
    made = inspect.isclass(factory) and not is_dataclass(factory)
    hints = get_type_hints(factory.__init__ if made else factory)
    return {
        option: _value(f"{where}: {option}", text, hints.get(option))
        for option, text in texts.items()
    }


def _value(where: str, text: str, hint: Any) -> Any:
    """Convert an option's text to the annotated type."""
    if get_origin(hint) is tuple:
        parts = tuple(part.strip() for part in text.split("+"))
        if not all(parts):
            raise SafegenError(f"{where} must be one or more joined by +, not {text!r}")
        return tuple(_value(where, part, get_args(hint)[0]) for part in parts)
    union = get_origin(hint) in (Union, UnionType)
    kinds = get_args(hint) if union else (hint,)
    for kind, (what, read) in _READERS.items():
        if kind not in kinds:
            continue
        also = ", or all" if kind is int and NoneType in kinds else ""
        if also and text == "all":
            return None
        try:
            return read(text)
        except (ValueError, KeyError):
            raise SafegenError(f"{where} must be {what}{also}, not {text!r}") from None
    return text


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


_READERS: Mapping[Any, tuple[str, Callable[[str], Any]]] = {
    bool: ("true or false", {"true": True, "false": False}.__getitem__),
    int: ("a whole number", int),
    float: ("a finite number", _finite),
}
