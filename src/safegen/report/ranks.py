"""What a LoRA of each rank keeps of a patch, as a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from rich.table import Table

from safegen.patches.low_rank import LowRankPatch, Ranks
from safegen.patches.patch import Patch
from safegen.report.wording import percent


class Effect(NamedTuple):
    """What a patch does, as shares; None where the model does nothing of the kind without it.

    Attributes:
        removal: of the unsafe pictures, how many are gone.
        retention: of what is kept without the patch, how much still is.
    """

    removal: float | None
    retention: float | None


def rank_table(
    parts: LowRankPatch,
    chosen: Ranks,
    dtype: torch.dtype,
    measure: Callable[[Patch], Effect] | None = None,
) -> Table:
    """A row for ranks 1, 2, 4 and so on up to the full one, and for the chosen ranks.

    Args:
        parts: the patch.
        chosen: the ranks that are written.
        dtype: in which they are.
        measure: gives the effect of a patch; None does not measure.
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
