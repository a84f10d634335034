"""Switch to PyTorch's public interfaces alone.

It turns off oneDNN's operators (``safegen.models.onednn``), layers that keep less for the backward
pass (``safegen.editing.memory.lean_layers``), selective recomputation and memory prediction
(``safegen.editing.memory.selective`` and ``.prediction``, which see single operators), and the one
token for many in joint attention (``safegen.models.merging``). Without them
results differ by rounding, a step takes more time and memory, and a dry run reports no memory. Any
other use of a private interface of PyTorch belongs here.
"""

from __future__ import annotations

_plain = False


def use_plain_kernels(plain: bool = True) -> None:
    """Use PyTorch's public interfaces alone in this process, or (``False``) all again."""
    global _plain
    _plain = plain


def plain_kernels() -> bool:
    """Tell whether PyTorch's public interfaces alone are used."""
    return _plain
