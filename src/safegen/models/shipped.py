"""Configurations and CLIP's tokenizer, which files in the original layout leave out."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "configs"
CONFIGS = ("sd1", "sd2", "sd2-base", "sdxl")
"""Names of the configurations published with Stable Diffusion 1.5, 2.1, 2.1 base and XL."""


def shipped_tokenizers(name: str) -> dict[str, Any]:
    """Build the tokenizers of one of ``CONFIGS``, by the pipeline's names."""
    return {
        path.parent.name: clip_tokenizer(json.loads(path.read_text())["pad_token"])
        for path in (FOLDER / name).glob("tokenizer*/tokenizer_config.json")
    }


@cache
def clip_tokenizer(pad_token: str) -> Any:
    """Build CLIP's tokenizer, which all ``CONFIGS`` share except for the padding."""
    from transformers import CLIPTokenizer

    with gzip.open(FOLDER / "clip" / "merges.txt.gz", "rt", encoding="utf-8") as file:
        merges = [tuple(line.split()) for line in file]
    letters = _byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=merges,
        pad_token=pad_token,
        model_max_length=77,
    )


def _byte_letters() -> list[str]:
    """Map each byte to a letter, in the vocabulary's order: printable bytes to themselves, the
    others to letters from U+0100 on (GPT-2's byte-level alphabet)."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(code) for code in (*printing, *range(0x100, 0x200 - len(printing)))]
