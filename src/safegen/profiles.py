"""Profiles: the usual settings of a model, so that its name suffices.

A package registers the profile of its model by an entry point of the group ``safegen.profiles``
that names a ``Profile``. A profile's module imports no torch; functions load what needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from safegen.concepts import Concept
from safegen.errors import SafegenError
from safegen.registry import Registry

if TYPE_CHECKING:
    import numpy as np

Settings = Mapping[str, Any]
"""Values of a settings class by field; missing fields keep the class's defaults."""
NO_SETTINGS: Settings = MappingProxyType({})
Captioned = tuple[Sequence["np.ndarray"], Sequence[str]]
"""Pictures, uint8 (H, W, 3), and a caption for each."""


@dataclass(frozen=True)
class Rewordings:
    """Grammar of rewordings: what may stand for a concept's word, and what beside it.

    Attributes:
        names: texts in place of the word, such as ``a special tool``.
        links: words between a name and a partner; the empty one drops the partner.
        partners: texts of other things.
    """

    names: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    partners: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """Usual settings for one model; a field left out has no usual value.

    Attributes:
        name: the model's name in ``load_pipeline`` and all commands.
        source: the model's diffusers folder or hub id.
        built_by: command that makes the source where it is missing.
        concept: the usual concept, which defenses remove.
        preserved: texts that erasers keep unchanged.
        erased: prompts that erasers erase beside the concept's words.
        sampling: fields of ``SamplingSettings``.
        erasers: fields of each eraser's settings, by the eraser's registered name.
        attacks: fields of each attack's settings, by the attack's registered name.
        observers: specs of what looks at its pictures, beside the concept's detector.
        batch: pictures at once in an evaluation.
        small: whether each processor core may hold a copy of the model.
        judge: spec of the attacker's detector.
        goals, examples: specs of the prompts that an attacker targets, and learns from.
        clip: folder or hub id of the model's CLIP, which ``clip:NAME`` stands for.
        filtered: folder of a UNet trained without the concept.
        safety_checker: builds a safety checker for words, and its image processor.
        caption_words: words of the model's captions, for attacks that search over texts.
        rewordings: grammar of rewordings, for attacks that reword goals.
        benign: draws benign pictures from a count and a seed; none trains an edit.
        real: image files that the Fréchet distance compares with.
        licence: the model's licence, for its card.
    """

    name: str = ""
    source: Path | str = ""
    built_by: str | None = None
    concept: Concept | None = None
    preserved: tuple[str, ...] = ()
    erased: Callable[[], Sequence[str]] = tuple
    sampling: Settings = field(default_factory=dict)
    erasers: Mapping[str, Settings] = field(default_factory=dict)
    attacks: Mapping[str, Settings] = field(default_factory=dict)
    observers: tuple[str, ...] = ()
    batch: int = 8
    small: bool = False
    judge: str | None = None
    goals: str | None = None
    examples: str | None = None
    clip: Path | str | None = None
    filtered: Path | None = None
    safety_checker: Callable[[tuple[str, ...]], tuple[Any, Any]] | None = None
    caption_words: Callable[[], Sequence[str]] | None = None
    rewordings: Callable[[], Rewordings] | None = None
    benign: Callable[[int, int], Captioned] | None = None
    real: Callable[[], Any] | None = None
    licence: str | None = None


PROFILES: Registry[Any] = Registry("profiles")


def profile_of(model: str | Path | None) -> Profile | None:
    """Look up a profile by registered name, folder or hub id; None without one.

    A registered name wins over a folder of that name, which ``./NAME`` stands for.
    """
    if str(model) in PROFILES.names():
        return _profile(str(model))
    return next((each for each in _profiles() if model and _same(each.source, model)), None)


def profile_for(pipeline: Any) -> Profile | None:
    """Look up the profile of a pipeline's model; None without one."""
    return profile_of(getattr(pipeline, "name_or_path", None))


def concept_for(model: str, text: str | None = None, name: str | None = None) -> Concept | None:
    """Make a concept from a text (default: the model's usual concept, else None).

    Args:
        model: the model, as the user named it.
        text: the content to remove, its parts between commas.
        name: the concept's name (default: the usual concept's, else ``concept``).
    """
    if text is not None:
        return Concept(name or "concept", text)
    usual = (profile_of(model) or Profile()).concept
    return usual if usual is None or name is None else replace(usual, name=name)


def _profiles() -> Iterator[Profile]:
    return map(_profile, PROFILES.names())


def _profile(name: str) -> Profile:
    profile = PROFILES.get(name)
    if not isinstance(profile, Profile) or profile.name != name:
        raise SafegenError(
            f"profiles: what a package gives as {name!r} is no Profile of that name; mend or "
            "uninstall it"
        )
    return profile


def _same(source: Path | str, model: str | Path) -> bool:
    if isinstance(source, Path):
        return source.resolve() == Path(model).resolve()
    return source == str(model)
