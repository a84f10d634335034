"""Named tensors and what is to be said of them, in one safetensors file of a known kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from safegen.errors import SafegenError
from safegen.files import file_atomically


def write_tensors(
    path: Path, form: str, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]
) -> None:
    """Write tensors with JSON metadata; the same content always gives the same bytes."""
    # One entry only: safetensors writes several in no fixed order.
    header = json.dumps({"format": form, "metadata": metadata}, sort_keys=True)
    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    with file_atomically(path) as temporary:
        save_file(contiguous, temporary, {"safegen": header})


def read_tensors(
    path: Path, form: str, *, kind: str, foreign: str, mend: str
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and metadata that ``write_tensors`` wrote.

    Args:
        path: the file.
        form: the format it must name.
        kind: what to call it where it is missing.
        foreign: what to say of a safetensors file of another format.
        mend: what to do about a damaged one.

    Raises:
        SafegenError: the file is missing, damaged or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("safegen", "{}"))
            if header.get("format") != form:
                raise SafegenError(f"{path}: {foreign}")
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, header["metadata"]
    except FileNotFoundError as error:
        raise SafegenError(f"{path}: no such {kind}; check the path") from error
    except (SafetensorError, OSError) as error:
        raise SafegenError(f"{path}: truncated or no safetensors file ({error}); {mend}") from error
