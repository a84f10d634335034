"""Training state on disk: tensors in safetensors, everything else as JSON in its header.

No pickle is involved, and a file is either complete or absent: it is written under a
temporary name, flushed to disk and renamed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save

from safegen.errors import SafegenError
from safegen.files import write_atomically
from safegen.tensors import open_safetensors

_TENSOR = "__tensor__"
_INT_KEYS = "__int_keys__"


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a nested dict / list of tensors and JSON values, such as optimizer state dicts.

    The keys of each dict are all text or all integers; tuples are read back as lists and
    tensors on the CPU.

    Raises:
        TypeError: the state holds something else.
        SafegenError: the file cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _flatten(state, "", tensors)
    write_atomically(path, save(tensors, metadata={"state": json.dumps(tree)}))


def load_state(path: Path) -> dict[str, Any]:
    """Read a state that ``save_state`` wrote.

    Raises:
        SafegenError: the file is missing, damaged or of another kind.
    """
    mend = "choose another or start the training anew"
    with open_safetensors(path, "checkpoint", mend) as file:
        try:
            state = _unflatten(json.loads(file.metadata()["state"]), file)
        except (SafetensorError, TypeError, KeyError, ValueError, RecursionError) as error:
            raise SafegenError(f"{path}: no whole checkpoint of safegen; {mend}") from error
    if not isinstance(state, dict):
        raise SafegenError(f"{path}: no whole checkpoint of safegen; {mend}")
    return state


def _flatten(value: Any, prefix: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[prefix] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: prefix}
    if isinstance(value, dict):
        tree = {
            str(key): _flatten(item, f"{prefix}/{_escape(key)}", tensors)
            for key, item in value.items()
        }
        return {_INT_KEYS: tree} if _has_int_keys(value) else tree
    if isinstance(value, list | tuple):
        return [_flatten(item, f"{prefix}/{i}", tensors) for i, item in enumerate(value)]
    return value


def _has_int_keys(value: dict[Any, Any]) -> bool:
    kinds = {type(key) for key in value}
    if kinds <= {str} and not value.keys() & {_TENSOR, _INT_KEYS}:
        return False
    if kinds == {int}:
        return True
    raise TypeError(f"keys must be all text or all integers, and not reserved: {list(value)}")


def _escape(key: str | int) -> str:
    # Escape as in a JSON pointer (RFC 6901), so that "a/b" and "b" in "a" have different names.
    return str(key).replace("~", "~0").replace("/", "~1")


def _unflatten(tree: Any, file: Any) -> Any:
    if isinstance(tree, dict):
        if _TENSOR in tree:
            return file.get_tensor(tree[_TENSOR])
        if _INT_KEYS in tree:
            return {int(k): _unflatten(v, file) for k, v in tree[_INT_KEYS].items()}
        return {key: _unflatten(value, file) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_unflatten(item, file) for item in tree]
    return tree
