"""Table of the share of a patch that a LoRA of each rank keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from rich.table import Table

from safegen.patches.low_rank import LowRankPatch, Ranks
from safegen.patches.patch import Patch
from safegen.report.wording import percent


class Effect(NamedTuple):
    """Effect of a patch in shares; None if the model without it draws nothing of the kind.

    Attributes:
        removal: share of the unsafe pictures that are gone.
        retention: retention relative to that without the patch.
    """

    removal: float | None
    retention: float | None


def rank_table(
    parts: LowRankPatch,
    chosen: Ranks,
    dtype: torch.dtype,
    measure: Callable[[Patch], Effect] | None = None,
) -> Table:
    """Build a row per rank 1, 2, 4 and so on up to the full one, and one for the chosen ranks.

    Args:
        parts: factors of the patch.
        chosen: ranks to write.
        dtype: dtype of the written factors.
        measure: function that measures a patch's effect; None does not measure.
    """
    table = Table("rank", title="What a LoRA keeps of the patch")
    for head in ("energy kept", "error", "MB"):
        table.add_column(head, justify="right")
    if measure is not None:
        table.add_column("removal", justify="right")
        table.add_column("retention", justify="right")
        table.add_row("the patch itself", "", "", "", *_texts(measure(parts.patch)))
    for label, ranks in _rows(parts, chosen).items():
        cells = [label, *_sizes(parts, ranks, dtype)]
        if measure is not None:
            cells += _texts(measure(parts.approximation(ranks, dtype)))
        table.add_row(*cells, style="bold" if ranks is chosen else None)
    return table


def _rows(parts: LowRankPatch, chosen: Ranks) -> dict[str, Ranks]:
    powers = [1 << power for power in range(parts.full_rank.bit_length())]
    uniform = sorted({*powers, parts.full_rank})
    rows: dict[str, Ranks] = {str(rank): parts.at_rank(rank) for rank in uniform}
    low, high = min(chosen.values()), max(chosen.values())
    return rows | {f"written: {low}" + (f" to {high}" if high > low else ""): chosen}


def _sizes(parts: LowRankPatch, ranks: Ranks, dtype: torch.dtype) -> list[str]:
    megabytes = parts.size(ranks) * dtype.itemsize / 1e6
    return [percent(parts.energy(ranks)), percent(parts.error(ranks)), f"{megabytes:.2f}"]


def _texts(effect: Effect) -> list[str]:
    return ["–" if share is None else percent(share) for share in effect]
