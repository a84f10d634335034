"""Training state on disk: tensors in safetensors, everything else as JSON in its header.

No pickle is involved, and a file is either complete or absent: it is written under a
temporary name, flushed to disk and renamed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from safegen.files import write_atomically

_TENSOR = "__tensor__"
_INT_KEYS = "__int_keys__"


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a nested dict / list of tensors and JSON values, such as optimizer state dicts."""
    tensors: dict[str, torch.Tensor] = {}
    tree = _flatten(state, "", tensors)
    write_atomically(path, save(tensors, metadata={"state": json.dumps(tree)}))


def load_state(path: Path) -> dict[str, Any]:
    """Read what ``save_state`` wrote."""
    with safe_open(path, framework="pt") as file:
        tree = json.loads(file.metadata()["state"])
        return _unflatten(tree, file)


def _flatten(value: Any, prefix: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[prefix] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: prefix}
    if isinstance(value, dict):
        tree = {str(k): _flatten(v, f"{prefix}/{k}", tensors) for k, v in value.items()}
        if value and all(isinstance(key, int) for key in value):
            return {_INT_KEYS: tree}
        return tree
    if isinstance(value, list | tuple):
        return [_flatten(item, f"{prefix}/{i}", tensors) for i, item in enumerate(value)]
    return value


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
