"""Attacks that change the defended model's weights once, and then draw the goals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch

from safegen.attacks import Attack, Finding, Strike, Task
from safegen.attacks.search import Drawn, search
from safegen.attacks.target import Target
from safegen.models.moving import denoiser_put_back


class WeightChange(Attack):
    """Attack by a change of the denoiser's weights, which is undone afterwards."""

    def change(self, target: Target) -> None:
        """Change the weights of the target's denoiser in place."""
        raise NotImplementedError

    @contextmanager
    def against(self, target: Target) -> Iterator[Strike]:
        """See ``Attack.against``; the weights change here."""
        with denoiser_put_back(target.pipeline):
            with torch.no_grad():
                self.change(target)
            yield partial(_strike, target)


def _strike(target: Target, tasks: Sequence[Task]) -> list[Finding]:
    def draw(rows: list[int], _number: int) -> list[Drawn]:
        return list(map(Drawn, target.draw([tasks[i] for i in rows])))

    return search(target, tasks, draw)
