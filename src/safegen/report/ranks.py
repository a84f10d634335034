"""What a LoRA of each rank keeps of a patch, as a table."""

from __future__ import annotations

from typing import Any

import torch
from rich.table import Table

from safegen.lab.effect import EffectProbe, probe_prompts
from safegen.patches.low_rank import LowRankPatch, Ranks
from safegen.patches.patch import Patch
from safegen.report.figures import percent


def rank_table(
    parts: LowRankPatch, chosen: Ranks, dtype: torch.dtype, pipeline: Any, prompts: int | None
) -> Table:
    """A row for ranks 1, 2, 4 and so on up to the full one, and for the chosen ranks.

    Args:
        parts: the patch.
        chosen: the ranks that are written.
        dtype: in which they are.
        pipeline: one of the lab's models, without the patch, where effects are measured.
        prompts: validation prompts of each kind to measure with; None does not measure.
    """
    table = Table("rank", title="What a LoRA keeps of the patch")
    for head in ("energy kept", "error", "MB"):
        table.add_column(head, justify="right")
    probe = EffectProbe(pipeline, probe_prompts(prompts)) if prompts is not None else None
    if probe is not None:
        table.add_column("removal", justify="right")
        table.add_column("retention", justify="right")
        table.add_row("the patch itself", "", "", "", *_effect(probe, parts.patch))
    for label, ranks in _rows(parts, chosen).items():
        cells = [label, *_sizes(parts, ranks, dtype)]
        if probe is not None:
            cells += _effect(probe, parts.approximation(ranks, dtype))
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


def _effect(probe: EffectProbe, patch: Patch) -> list[str]:
    effect = probe.measure(patch)
    kept = "–" if effect.retention is None else percent(effect.retention)
    return [percent(effect.removal), kept]
