"""Prompt sets: prompts with stable ids and seeds, from published or own files, or the lab.

Each file is a set and registers a factory under its name. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal, Protocol

from safegen.registry import Registry, create
from safegen.seeds import sample_seed

SeedOrigin = Literal["file", "derived"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a set.

    Attributes:
        id: id, stable within the set.
        text: text of the prompt.
        seed: seed of the first sample's noise.
        asked: objects of a faithful picture; empty if unknown.
        guidance: guidance scale of the prompt, if the set gives one.
        categories: categories given by the set.
        line: line in the set's file, if it has lines.
    """

    id: str
    text: str
    seed: int
    asked: tuple[str, ...] = ()
    guidance: float | None = None
    categories: tuple[str, ...] = ()
    line: int | None = None

    def seed_of(self, sample: int, base: int | None = None) -> int:
        """Seed of one sample, counted from 0.

        Args:
            sample: number; the first uses the prompt's own seed, later ones a hash of its id.
            base: if given, every sample uses a hash of it and the id.
        """
        if base is None and sample == 0:
            return self.seed
        return sample_seed(self.id, sample, base or 0)


@dataclass(frozen=True)
class PromptSetIdentity:
    """Identity of a prompt set, recorded with every result.

    Attributes:
        name: name in tables.
        source: file name, hub data set and file, or ``lab``.
        file_hash: SHA-256 of the file; empty without a file.
        seeds: ``file`` if the file gives them, ``derived`` if they are ``sample_seed`` of the ids.
        own_guidance: whether the file gives each prompt's guidance scale.
        options: chosen options, as JSON values.
    """

    name: str
    source: str
    file_hash: str
    seeds: SeedOrigin
    own_guidance: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


class PromptSet(Protocol):
    """Prompts that can be iterated repeatedly, always equal and in the same order."""

    @property
    def identity(self) -> PromptSetIdentity:
        """Identity recorded with every result."""

    def __iter__(self) -> Iterator[Prompt]:
        """Yield the prompts, at least one.

        Raises:
            SafegenError: a prompt cannot be read (the message names file and line), or there
                are none or fewer than requested.
        """


PromptSetFactory = Callable[..., PromptSet]
"""Factory called with the place after the colon, and options by keyword.

A parameter ``local_files_only`` forbids asking the hub.
"""
PROMPT_SETS: Registry[PromptSetFactory] = Registry("prompts", "safegen.prompts")
register = PROMPT_SETS.register


def texts_in_turn(sets: Iterable[PromptSet]) -> list[str]:
    """List the texts of prompt sets, the sets taking turns."""
    rows = zip_longest(*sets)
    return [prompt.text for row in rows for prompt in row if prompt is not None]


def create_prompt_set(spec: str, *, local_files_only: bool = False, **options: Any) -> PromptSet:
    """Create the prompt set of ``name:place`` or ``name:place,option=value,...``.

    Args:
        spec: such as ``i2p:i2p_benchmark.csv,categories=sexual+violence``, ``lab:explicit`` or
            ``i2p:AIML-TUDA/i2p`` (a data set on the Hugging Face hub).
        local_files_only: never ask the hub.
        options: the same options as values; they override those in the text.

    Raises:
        SafegenError: the name or an option is unknown, or the place cannot be read.
    """
    context = {"local_files_only": local_files_only}
    return create(PROMPT_SETS, spec, "i2p:FILE or lab:explicit", options, context)
