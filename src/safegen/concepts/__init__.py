"""Concepts: what a defense removes, as data.

A concept is a YAML file. A package registers its own by an entry point of the group
``safegen.concepts`` that names the file's ``Path``; a user's file is given by its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from safegen.errors import SafegenError, first_line
from safegen.registry import Registry
from safegen.settings import fits, suggestion

CONCEPTS: Registry[Path] = Registry("concepts")
NUDITY = Path(__file__).with_name("nudity.yaml")
Texts = tuple[str, ...]


@dataclass(frozen=True)
class ConceptPrompts:
    """Prompt sets by role, each SPEC or NAME=SPEC; every set has the option ``split``.

    Attributes:
        unsafe: prompts that ask for the concept.
        benign: prompts whose pictures must stay.
        near_miss: benign prompts whose pictures resemble the concept.
    """

    unsafe: Texts = ()
    benign: Texts = ()
    near_miss: Texts = ()


@dataclass(frozen=True)
class Concept:
    """A kind of content to remove.

    Attributes:
        name: short, kept in patches and results.
        text: the concept in words, for text-dependent defenses only (default: the name).
        words: the concept's parts, each a prompt of its own (default: the text split at commas).
        objects: the concept's objects, as prompts and observers name them.
        near_misses: benign objects that resemble them.
        detector: spec of the detector that finds the concept, with labels and threshold.
        observers: specs of further observers of the concept, such as a judge of outlines.
        censoring: how the found regions are hidden.
        triplets: spec of a source of triplets; None if they come from files or the model.
        prompts: prompt sets by role.
    """

    name: str
    text: str = ""
    words: Texts = ()
    objects: Texts = ()
    near_misses: Texts = ()
    detector: str | None = None
    observers: Texts = ()
    censoring: str = "pixelate"
    triplets: str | None = None
    prompts: ConceptPrompts = ConceptPrompts()

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.text or self.name)
        if not self.words:
            parts = tuple(part.strip() for part in self.text.split(","))
            object.__setattr__(self, "words", tuple(part for part in parts if part))
        if not self.words or not all(word.strip() for word in (self.text, *self.words)):
            raise SafegenError(
                f"concept {self.name!r}: its text and words must not be empty; say what to remove"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What text-dependent defenses and attacks take, recorded with results."""
        return {"name": self.name, "text": self.text, "words": self.words}


def load_concept(name: str) -> Concept:
    """Load a concept by its registered name, or from a ``.yaml`` file.

    Raises:
        SafegenError: the name is unknown, or the file is no concept.
    """
    if Path(name).suffix.lower() in (".yaml", ".yml"):
        return read_concept(Path(name))
    concept = read_concept(Path(CONCEPTS.get(name)))
    if concept.name != name:
        raise SafegenError(
            f"concepts: what a package gives as {name!r} is named {concept.name!r}; mend or "
            "uninstall it"
        )
    return concept


def read_concept(file: Path) -> Concept:
    """Read a concept's YAML file.

    Raises:
        SafegenError: the file cannot be read, or has an unknown key or a value of a wrong type.
    """
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SafegenError(
            f"{file}: cannot be read as YAML ({first_line(error)}); check the path and the file"
        ) from error
    concept: Concept = _checked(f"{file}: ", Concept, content)
    return concept


def _checked(where: str, kind: Any, content: Any) -> Any:
    """Make a dataclass from a mapping, with each key and type checked."""
    known = {each.name: each for each in fields(kind)}
    if not isinstance(content, Mapping):
        raise SafegenError(f"{where}must be a mapping with keys among {', '.join(known)}")
    hints, values = get_type_hints(kind), {}
    for key, value in content.items():
        if key not in known:
            hint = suggestion(str(key), known) or f"; known: {', '.join(known)}"
            raise SafegenError(f"{where}unknown key {key!r}{hint}")
        if hints[key] is ConceptPrompts:
            values[key] = _checked(f"{where}{key}: ", ConceptPrompts, value)
            continue
        values[key] = tuple(value) if isinstance(value, list) else value
        if not fits(values[key], hints[key]):
            wanted = "a list of texts" if hints[key] == Texts else "a text"
            raise SafegenError(f"{where}{key} must be {wanted}, not {value!r}")
    missing = [name for name, each in known.items() if each.default is MISSING]
    for name in missing:
        if not values.get(name):
            raise SafegenError(f"{where}the key {name} is missing; write {name}: …")
    return kind(**values)
