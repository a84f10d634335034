"""A lazy registry: names known without importing what they stand for.

Built-in entries are the modules of a package, one file an entry, each with a decorated factory
or class; entries of other packages come through entry points of the group
``safegen.<kind>`` (for example ``safegen.detectors``). Listing names imports nothing.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Generic, TypeVar, cast

from safegen.errors import SafegenError

T = TypeVar("T")
Component = TypeVar("Component")
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Registry(Generic[T]):
    """Names to factories of one kind of component.

    Args:
        kind: plural of what is registered, for messages and the entry-point group.
        package: the package whose modules are the built-in entries; a module ``safety_filter``
            is the entry ``safety-filter`` and must register exactly that name. None if all
            entries come through entry points.
        shared: modules of the package that entries build on, and are none themselves.
    """

    def __init__(self, kind: str, package: str | None = None, shared: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.package = package
        self.shared = shared
        self._loaded: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorate a factory or class to register it under a name; a name taken is an error."""

        def decorate(entry: T) -> T:
            if name in self._loaded:
                raise ValueError(f"{self.kind}: the name {name!r} is registered already")
            self._loaded[name] = entry
            return entry

        return decorate

    def names(self) -> list[str]:
        """All names, sorted; imports no entry."""
        points = (point.name for point in self._entry_points())
        return sorted({*self._loaded, *self._modules(), *points})

    def built_in(self) -> list[str]:
        """Names of the package's own entries, sorted; imports no entry."""
        return sorted(self._modules())

    def get(self, name: str) -> T:
        """The entry of a name.

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
            return cast(T, points[0].load())
        raise SafegenError(self._unknown(name))

    def _import(self, module: str, name: str) -> T:
        importlib.import_module(module)
        if name not in self._loaded:
            raise ValueError(f"{self.kind}: the module {module} does not register {name!r}")
        return self._loaded[name]

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
        # A set, since a package found twice on the path tells its entry points twice.
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


AnyRegistry = Registry[Any]


def create(
    registry: Registry[Callable[..., Component]],
    spec: str,
    example: str,
    options: Mapping[str, Any] = _NOTHING,
    context: Mapping[str, Any] = _NOTHING,
) -> Component:
    """What the factory of ``name``, or of ``name:argument``, makes.

    Args:
        registry: of factories.
        spec: a registered name; what follows a colon is the factory's one positional argument.
        example: a spec with an argument, for the message.
        options: keyword arguments that the factory must take.
        context: further keyword arguments, for factories that have such parameters.

    Raises:
        SafegenError: the name is unknown, or the argument or an option is missing or not taken.
    """
    name, colon, argument = spec.partition(":")
    factory = registry.get(name)
    signature = inspect.signature(factory)
    known = {key: value for key, value in context.items() if key in signature.parameters}
    positional = (argument,) if argument else ()
    keywords = {**options, **known}
    try:
        if colon and not argument:
            raise TypeError("nothing follows the colon")
        signature.bind(*positional, **keywords)
    except TypeError as error:
        raise SafegenError(
            f"{spec!r} among {registry.kind}: {error}; what {name} needs follows a colon, "
            f"as in {example}"
        ) from error
    return factory(*positional, **keywords)
