"""``safegen inspect``: show which weights of a model an edit would train, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from safegen.cli.loading import Model, takes_load_options
from safegen.models.options import LoadOptions

if TYPE_CHECKING:
    from safegen.models.anatomy import Layer


@takes_load_options
def inspect(model: Model, *, loading: LoadOptions) -> None:
    """Show the layers of a model's attention: which of them an edit trains, and why.

    Only configurations are read; of a single file, the weights too.
    """
    from rich.table import Table

    from safegen.cli._console import Console
    from safegen.models.anatomy import attention_layers, self_attention_names
    from safegen.models.loading import load_denoiser

    denoiser = load_denoiser(model, **vars(loading))
    sizes = {name: weight.numel() for name, weight in denoiser.named_parameters()}
    title = type(denoiser).__name__
    table = Table("attention", "blocks", "layers", "weights", "trained", "reason", title=title)
    for row in _rows(attention_layers(denoiser), sizes):
        table.add_row(*row)
    Console().print(table)
    names = self_attention_names(denoiser)
    trained, total = sum(sizes[name] for name in names), sum(sizes.values())
    typer.echo(
        f"an edit trains {trained:,} of {total:,} weights ({trained / total:.1%}), "
        f"{len(names)} tensors"
    )


def _rows(layers: list[Layer], sizes: dict[str, int]) -> Iterator[tuple[str, ...]]:
    """Rows of the table: one for all layers of like attentions with the same reason."""
    groups: dict[tuple[str, bool, str], list[Layer]] = {}
    for layer in layers:
        groups.setdefault((layer.pattern, layer.trained, layer.reason), []).append(layer)
    for (pattern, trained, reason), group in groups.items():
        blocks = len({layer.attention for layer in group})
        parts = " ".join(dict.fromkeys(layer.name for layer in group))
        weights = sum(sizes[name] for layer in group for name in layer.parameters)
        answer = "yes" if trained else "no"
        yield pattern, str(blocks), parts, f"{weights:,}", answer, reason
