"""Defenses: methods that make a text-to-image pipeline safer, applied and removed in place.

Each file is a defense and registers a factory under its name. A defense edits weights, guides the
denoiser or filters the output, always through the pipeline's own call.
"""

from __future__ import annotations

import inspect
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from safegen.concepts import Concept
from safegen.errors import SafegenError
from safegen.profiles import Profile, profile_for
from safegen.registry import Registry, create, name_of

Undo = Callable[[], None]
_APPLIED = "_safegen_defenses"
_OPTION = re.compile(r",[a-z_]+=")
_MUST_BE_FIRST = (
    "a defense that exchanges what others are put on has to come first, as in filtered+sld-max"
)


class FilterSetAsideWarning(UserWarning):
    """The model's own safety checker is inactive while defenses are applied."""


@dataclass(frozen=True)
class DefenseIdentity:
    """Identity of a defense, recorded with every result.

    Attributes:
        name: name in tables, such as ``esd-x`` or ``safegen+sld-max``.
        settings: everything that the effect depends on, as JSON values; no paths.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)


class Defense(ABC):
    """A defense that can be applied to a diffusers pipeline, in place, and removed.

    Subclasses define ``identity`` and ``attach``.

    Attributes:
        changes: what it changes, for readers of tables: ``nothing``, ``weights``, ``sampling``,
            ``output``, ``model`` (a whole part of it), or ``unknown``; joined by ``+`` in a stack.
    """

    changes = "unknown"

    @property
    def comes_first(self) -> bool:
        """Tell whether the defense replaces parts that other defenses build on."""
        return False

    @property
    @abstractmethod
    def identity(self) -> DefenseIdentity:
        """Identity recorded with every result."""

    @abstractmethod
    def attach(self, pipeline: Any) -> Undo:
        """Change the pipeline in place; returns the function that restores it bit for bit.

        Raises:
            SafegenError: the defense does not fit the pipeline, which stays unchanged.
        """

    def apply(self, pipeline: Any) -> None:
        """Apply the defense on top of those already applied.

        The model's own safety checker is set aside while any defense is applied; the defense
        ``safety-filter`` activates it.

        Raises:
            SafegenError: the defense does not fit the pipeline, or must come first.

        Warns:
            FilterSetAsideWarning: the model has its own safety checker.
        """
        applied: _Applied | None = getattr(pipeline, _APPLIED, None)
        if applied is not None and self.comes_first:
            raise SafegenError(_MUST_BE_FIRST)
        with ExitStack() as undo:
            if applied is None:
                applied = _Applied(set_aside_checker(pipeline))
                setattr(pipeline, _APPLIED, applied)
                undo.callback(_forget, pipeline, applied)
            applied.layers.append((self, self.attach(pipeline)))
            undo.pop_all()
        if len(applied.layers) == 1 and applied.checker is not None and not _filters(self):
            warnings.warn(
                f"the safety checker that the model came with is off under {self.identity.name}; "
                f"it acts as a defense of its own: {self.identity.name}+safety-filter",
                FilterSetAsideWarning,
                stacklevel=2,
            )

    def remove(self, pipeline: Any) -> None:
        """Remove the defense; the pipeline is as before ``apply``.

        Raises:
            SafegenError: the defense is not applied, or another was applied after it.
        """
        applied: _Applied | None = getattr(pipeline, _APPLIED, None)
        if applied is None or all(layer is not self for layer, _ in applied.layers):
            raise SafegenError(f"{self.identity.name} is not applied, so it cannot be removed")
        last, undo = applied.layers[-1]
        if last is not self:
            raise SafegenError(
                f"{last.identity.name} was applied after {self.identity.name}; remove it first"
            )
        undo()
        applied.layers.pop()
        if not applied.layers:
            _forget(pipeline, applied)


class Stack(Defense):
    """Stack of defenses, applied in order and removed in reverse."""

    def __init__(self, parts: Sequence[Defense]) -> None:
        if any(part.comes_first for part in parts[1:]):
            raise SafegenError(_MUST_BE_FIRST)
        self.parts = tuple(parts)
        self.changes = "+".join(dict.fromkeys(part.changes for part in parts))

    @property
    def comes_first(self) -> bool:
        """See ``Defense.comes_first``."""
        return self.parts[0].comes_first

    @property
    def identity(self) -> DefenseIdentity:
        """Names joined by ``+``, with each part's settings in order."""
        parts = [part.identity for part in self.parts]
        return DefenseIdentity(
            "+".join(part.name for part in parts),
            {"stack": [{"name": part.name, "settings": part.settings} for part in parts]},
        )

    def attach(self, pipeline: Any) -> Undo:
        """See ``Defense.attach``; if a part does not fit, earlier parts are removed."""
        with ExitStack() as undo:
            for part in self.parts:
                undo.callback(part.attach(pipeline))
            return undo.pop_all().close


DefenseFactory = Callable[..., Defense]
DEFENSES: Registry[DefenseFactory] = Registry("defenses", "safegen.defenses", shared=("erasing",))
register = DEFENSES.register


def create_defense(
    spec: str,
    concept: Concept | None = None,
    profile: Profile | None = None,
    *,
    local_files_only: bool = False,
) -> Defense:
    """Create the defense of ``name`` or ``name:argument``, or a stack joined by ``+``.

    Args:
        spec: such as ``sld-max`` or ``safegen:patch.safetensors+sld-max``; what follows a colon is
            the factory's one positional argument, without ``+``. After an option, what follows a
            ``+`` and is no defense's name is a further value of the option.
        concept: concept for text-dependent defenses.
        profile: the model's profile, for defenses with usual settings.
        local_files_only: never ask the hub.

    Raises:
        SafegenError: a name is unknown, an argument or the concept is missing or not accepted, or
            the order of the stack is impossible.
    """
    context: dict[str, Any] = {"profile": profile, "local_files_only": local_files_only}
    if concept is not None:
        context["concept"] = concept
    parts = [_create_one(part.strip(), context) for part in _stacked(spec)]
    return parts[0] if len(parts) == 1 else Stack(parts)


@contextmanager
def defended(
    pipeline: Any, defense: Defense | str, concept: Concept | None = None
) -> Iterator[Any]:
    """Apply a defense in the block and remove it in any case."""
    if isinstance(defense, str):
        chosen = create_defense(defense, concept, profile_for(pipeline))
    else:
        chosen = defense
    chosen.apply(pipeline)
    try:
        yield pipeline
    finally:
        chosen.remove(pipeline)


def set_aside_checker(pipeline: Any) -> Any:
    """Switch the pipeline's own safety checker off and return it; None without one."""
    checker = getattr(pipeline, "safety_checker", None)
    if checker is not None:
        pipeline.safety_checker = None
    return checker


def own_checker(pipeline: Any) -> Any:
    """Return the pipeline's own safety checker, on or set aside; None without one."""
    applied: _Applied | None = getattr(pipeline, _APPLIED, None)
    return applied.checker if applied else getattr(pipeline, "safety_checker", None)


@dataclass
class _Applied:
    """State of a pipeline: its own checker, set aside, and the applied defenses with their undo."""

    checker: Any
    layers: list[tuple[Defense, Undo]] = field(default_factory=list)


def _forget(pipeline: Any, applied: _Applied) -> None:
    if applied.checker is not None:
        pipeline.safety_checker = applied.checker
    delattr(pipeline, _APPLIED)


def _filters(defense: Defense) -> bool:
    return "safety-filter" in defense.identity.name.split("+")


def _stacked(spec: str) -> list[str]:
    """Split a spec at each ``+`` that joins defenses: not at one that joins an option's values."""
    parts: list[str] = []
    for part in spec.split("+"):
        if parts and _OPTION.search(parts[-1]) and name_of(part.strip()) not in DEFENSES.names():
            parts[-1] += f"+{part}"
        else:
            parts.append(part)
    return parts


def _create_one(spec: str, context: Mapping[str, Any]) -> Defense:
    name = name_of(spec)
    takes = inspect.signature(DEFENSES.get(name)).parameters.get("concept")
    if takes is not None and takes.default is inspect.Parameter.empty and "concept" not in context:
        raise SafegenError(
            f"defense {name!r} has to be told what to avoid; give the concept's text "
            "(--concept-text, or a Concept in Python)"
        )
    return create(DEFENSES, spec, "safegen:patch.safetensors", context=context)
