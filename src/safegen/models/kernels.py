"""The switch that does without what PyTorch does not promise to keep.

Behind it are oneDNN's operators (``safegen.models.onednn``), layers that keep less for the
backward pass (``safegen.editing.memory.lean_layers``), selective recomputation and the prediction
of memory (``safegen.editing.memory.selective`` and ``.prediction``, which see single operators).
Without them results differ by rounding, a step takes more time and memory, and a dry run says
nothing of memory. Whatever else uses an interface of PyTorch's that is not public belongs here.
"""

from __future__ import annotations

_plain = False


def use_plain_kernels(plain: bool = True) -> None:
    """In this process, use PyTorch's public interface only, or (``False``) all there is again."""
    global _plain
    _plain = plain


def plain_kernels() -> bool:
    """Whether only PyTorch's public interface is used."""
    return _plain
