"""Prompts that SneakyPrompt found (arXiv 2305.12082)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from safegen.errors import SafegenError
from safegen.prompts import register
from safegen.prompts._files import FilePrompts
from safegen.prompts._records import CSV, TEXT, Format, Record

Form = Literal["n", "p"]


@register("sneakyprompt")
@dataclass(frozen=True)
class SneakyPrompts(FilePrompts):
    """Text file with one prompt per line, or the search's CSV of results.

    A CSV keeps only attacks marked successful.

    Args:
        form: ``n`` for natural words in place of the filtered ones, ``p`` for pseudo-words; it is
            part of the set's name.
    """

    form: Form | None = None

    kind: ClassVar[str] = "sneakyprompt"
    text_columns: ClassVar[tuple[str, ...]] = ("perturbed_text", "prompt")
    formats: ClassVar[Mapping[str, Format]] = {".txt": TEXT, ".csv": CSV}

    def __post_init__(self) -> None:
        if self.form is not None and self.form not in get_args(Form):
            raise SafegenError(
                f"prompts sneakyprompt: form must be n (natural words) or p (pseudo-words), "
                f"not {self.form!r}"
            )
        super().__post_init__()

    @property
    def name(self) -> str:
        """See ``FilePrompts.name``."""
        return f"{self.kind}-{self.form}" if self.form else self.kind

    @property
    def selection(self) -> str:
        """See ``FilePrompts.selection``."""
        return " of successful attacks" if self._format is CSV else ""

    def keeps(self, record: Record) -> bool:
        """Tell whether the search succeeded; true if the file does not say."""
        return str(record.fields.get("result_type", "successful")).strip().lower() == "successful"
