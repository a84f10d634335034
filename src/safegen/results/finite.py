"""Check of values for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from safegen.errors import SafegenError


def check_finite(value: Any, where: str = "summary") -> Any:
    """Return the value as plain JSON types.

    Raises:
        SafegenError: a number in it is not finite; the message says where.
    """
    if isinstance(value, Mapping):
        return {str(key): check_finite(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [check_finite(item, f"{where}.{index}") for index, item in enumerate(value)]
    if isinstance(value, np.generic):
        return check_finite(value.item(), where)
    if isinstance(value, float) and not math.isfinite(value):
        raise SafegenError(f"{where} is {value}, not a finite number; the run cannot be reported")
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)
