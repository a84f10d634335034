"""A lazy registry: names known without importing what they stand for.

Built-in entries are the modules of a package, one file an entry, each with a decorated factory
or class; entries of other packages come through entry points of the group
``safegen.<kind>`` (for example ``safegen.detectors``). Listing names imports nothing.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from safegen.errors import SafegenError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to factories of one kind of component.

    Args:
        kind: plural of what is registered, for messages and the entry-point group.
        package: the package whose modules are the built-in entries; a module ``safety_filter``
            is the entry ``safety-filter`` and must register exactly that name.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
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
        package = importlib.import_module(self.package)
        found = pkgutil.iter_modules(package.__path__)
        return {
            module.name.replace("_", "-"): f"{self.package}.{module.name}"
            for module in found
            if not module.name.startswith("_")
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
