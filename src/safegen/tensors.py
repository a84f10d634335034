"""Safetensors files, each read through one schema that names the faulty entry."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from safetensors import SafetensorError, safe_open

from safegen.errors import SafegenError
from safegen.files import file_atomically, mend_for

if TYPE_CHECKING:
    import torch

ANY = "*"
"""Schema key for every tensor without an entry of its own."""
FLOATS = ("F16", "BF16", "F32", "F64")
_DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
_IN_JSON: dict[type, str] = {dict: "an object", list: "a list", str: "text"}


@dataclass(frozen=True)
class Entry:
    """Requirements on one tensor of a file.

    Attributes:
        dtypes: allowed dtypes, in safetensors' spelling.
        shape: one letter a dimension, such as ``N C H W``; a letter means the same size
            throughout a schema. Empty allows any shape.
    """

    dtypes: tuple[str, ...]
    shape: str = ""

    def fits(self, shape: tuple[int, ...], sizes: dict[str, int]) -> bool:
        """Tell whether a shape is allowed; ``sizes`` records each letter's size."""
        letters = self.shape.split()
        if letters and len(letters) != len(shape):
            return False
        pairs = zip(letters, shape, strict=False)
        return all(sizes.setdefault(letter, size) == size for letter, size in pairs)


@dataclass(frozen=True)
class Schema:
    """Requirements on one kind of file.

    Attributes:
        form: format name in the header.
        kind: noun for messages.
        maker: command that writes such a file.
        tensors: entries by name; all are required, and others are refused unless ``ANY`` is there.
        required: types of the required metadata.
        optional: types of the optional metadata.
    """

    form: str
    kind: str
    maker: str
    tensors: Mapping[str, Entry]
    required: Mapping[str, type] = field(default_factory=dict)
    optional: Mapping[str, type] = field(default_factory=dict)

    def read(self, path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Read the tensors, memory-mapped, and the metadata that ``write_tensors`` wrote.

        Raises:
            SafegenError: the file is missing, damaged, or violates the schema.
        """
        again = f"copy it or make it again with '{self.maker}'"
        with open_safetensors(path, self.kind, again) as file:
            metadata = self._metadata(path, (file.metadata() or {}).get("safegen"))
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {n: (part.get_dtype(), tuple(part.get_shape())) for n, part in parts.items()}
            self._check(str(path), shapes)
            return {name: file.get_tensor(name) for name in parts}, metadata

    def check(self, where: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Refuse tensors in memory that violate the schema."""
        dtypes = {name: str(value.dtype).removeprefix("torch.") for name, value in tensors.items()}
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        self._check(where, {n: (_DTYPES.get(dtypes[n], dtypes[n]), shapes[n]) for n in tensors})

    def _metadata(self, path: Path, header: str | None) -> dict[str, Any]:
        if header is None:
            raise SafegenError(f"{path}: is no safegen {self.kind}; make one with '{self.maker}'")
        try:
            content = json.loads(header)
        except (ValueError, RecursionError) as error:
            self._refuse(str(path), f"its header is not valid JSON ({error})", error)
        if not isinstance(content, dict) or content.get("format") != self.form:
            raise SafegenError(
                f"{path}: is no safegen {self.kind}, since its header does not name the format "
                f"{self.form}; make one with '{self.maker}'"
            )
        metadata = content.get("metadata")
        if not isinstance(metadata, dict):
            self._refuse(str(path), "its header's metadata are missing or no object")
        for key, kind in {**self.required, **self.optional}.items():
            if key not in metadata and key in self.required:
                self._refuse(str(path), f"its metadata lack {key!r}")
            if key in metadata and not isinstance(metadata[key], kind):
                self._refuse(str(path), f"its metadata's {key!r} is not {_IN_JSON[kind]}")
        return metadata

    def _check(self, where: str, found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        lacking = [name for name in self.tensors if name not in found and name != ANY]
        if lacking or not found:
            self._refuse(where, f"lacks {', '.join(lacking) or 'all tensors'}")
        sizes: dict[str, int] = {}
        for name in [each for each in dict.fromkeys([*self.tensors, *found]) if each in found]:
            (dtype, shape), entry = found[name], self.tensors.get(name, self.tensors.get(ANY))
            if entry is None:
                self._refuse(where, f"holds {name!r}, which is none of {', '.join(self.tensors)}")
            if dtype not in entry.dtypes:
                self._refuse(where, f"{name!r} is {dtype} instead of {' or '.join(entry.dtypes)}")
            expected = ", ".join(str(sizes.get(each, each)) for each in entry.shape.split())
            if not entry.fits(shape, sizes):
                self._refuse(where, f"{name!r} has the shape {shape} instead of ({expected})")

    def _refuse(self, where: str, what: str, cause: Exception | None = None) -> NoReturn:
        raise SafegenError(f"{where}: {what}; make it again with '{self.maker}'") from cause


@contextlib.contextmanager
def open_safetensors(
    path: Path, kind: str = "file", mend: str = "download it again"
) -> Iterator[Any]:
    """Open any safetensors file, as ``safe_open`` does for PyTorch.

    Args:
        path: the file.
        kind: noun for the message that the file is missing.
        mend: advice for a damaged file.

    Raises:
        SafegenError: the file is missing, a folder, unreadable, truncated or no safetensors.
    """
    if path.is_dir():
        raise SafegenError(f"{path}: is a folder; give a {kind}")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise SafegenError(f"{path}: no such {kind}; check the path") from error
    except (SafetensorError, OSError) as error:
        raise SafegenError(
            f"{path}: truncated or no safetensors file ({error}); {mend_for(error, mend)}"
        ) from error


def write_tensors(
    path: Path, form: str, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]
) -> None:
    """Write tensors with JSON metadata; equal content gives equal bytes."""
    from safetensors.torch import save_file

    # One entry only: safetensors writes several in random order.
    header = json.dumps({"format": form, "metadata": metadata}, sort_keys=True)
    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    with file_atomically(path) as temporary:
        save_file(contiguous, temporary, {"safegen": header})
