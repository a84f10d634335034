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
        return sorted({*self._loaded, *self._modules(), *self._entry_points()})

    def get(self, name: str) -> T:
        """The entry of a name; an unknown one is an error with a suggestion."""
        if name in self._loaded:
            return self._loaded[name]
        if name in self._modules():
            importlib.import_module(self._modules()[name])
            return self._loaded[name]
        if name in self._entry_points():
            return cast(T, self._entry_points()[name].load())
        raise SafegenError(self._unknown(name))

    def _modules(self) -> dict[str, str]:
        package = importlib.import_module(self.package)
        found = pkgutil.iter_modules(package.__path__)
        return {
            module.name.replace("_", "-"): f"{self.package}.{module.name}"
            for module in found
            if not module.name.startswith("_")
        }

    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=f"safegen.{self.kind}")}

    def _unknown(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.names(), n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        return f"unknown name {name!r} among {self.kind}. {hint}Known: {', '.join(self.names())}"


AnyRegistry = Registry[Any]
