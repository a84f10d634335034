"""Prompt sets: prompts with stable ids and seeds, from published files, one's own, or the lab.

One file a set; each registers a factory under the file's name. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from safegen.registry import Registry, create
from safegen.seeds import sample_seed

SeedOrigin = Literal["file", "derived"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt of a set.

    Attributes:
        id: stable within the set.
        text: the words.
        seed: of its first sample's noise.
        asked: the objects a faithful picture shows (empty where that is not known).
        guidance: the guidance scale that belongs to it, if its set says so.
        categories: what the set says it is an example of.
        line: where it stands in the set's file, if that has lines.
    """

    id: str
    text: str
    seed: int
    asked: tuple[str, ...] = ()
    guidance: float | None = None
    categories: tuple[str, ...] = ()
    line: int | None = None

    def seed_of(self, sample: int, base: int | None = None) -> int:
        """The seed of one of its samples, counted from 0.

        Args:
            sample: the first has the prompt's own seed, further ones a hash of its id.
            base: if given, the hash of it and the id is taken for every sample.
        """
        if base is None and sample == 0:
            return self.seed
        return sample_seed(self.id, sample, base or 0)


@dataclass(frozen=True)
class PromptSetIdentity:
    """What a result must record of the prompt set it was measured on.

    Attributes:
        name: what tables call it.
        source: the file's name, the hub's data set and file, or ``lab``.
        file_hash: SHA-256 of the file; empty where the prompts come from the program.
        seeds: ``file`` if the file has them, ``derived`` if they are ``sample_seed`` of the ids.
        own_guidance: whether the file says each prompt's guidance scale.
        options: what was chosen of it, as JSON values.
    """

    name: str
    source: str
    file_hash: str
    seeds: SeedOrigin
    own_guidance: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


class PromptSet(Protocol):
    """Prompts that can be gone through any number of times, always the same in the same order."""

    @property
    def identity(self) -> PromptSetIdentity:
        """What to record beside every result."""

    def __iter__(self) -> Iterator[Prompt]:
        """The prompts one by one, at least one.

        Raises:
            SafegenError: a prompt cannot be read (the message names file and line), there is
                none, or there are fewer than asked for.
        """


PromptSetFactory = Callable[..., PromptSet]
"""Called with the place that follows the colon, and with options by keyword.

A parameter ``local_files_only`` is told whether the hub may be asked.
"""
PROMPT_SETS: Registry[PromptSetFactory] = Registry("prompts", "safegen.prompts")
register = PROMPT_SETS.register


def create_prompt_set(spec: str, *, local_files_only: bool = False, **options: Any) -> PromptSet:
    """The prompt set of ``name:place``, or of ``name:place,option=value,...``.

    Args:
        spec: such as ``i2p:i2p_benchmark.csv,categories=sexual+violence``, ``lab:explicit`` or
            ``i2p:AIML-TUDA/i2p`` (a data set on the Hugging Face hub).
        local_files_only: never ask the hub.
        options: the same options as values, which win over those in the text.

    Raises:
        SafegenError: the name or an option is unknown, or the place cannot be read.
    """
    context = {"local_files_only": local_files_only}
    return create(PROMPT_SETS, spec, "i2p:FILE or lab:explicit", options, context)
