"""Resumable training loop of all lab models."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from safegen.averaging import update_average
from safegen.checkpoints import load_state, save_state
from safegen.muon import Muon

Step = Callable[[int, torch.Generator], torch.Tensor]


@dataclass(frozen=True)
class Schedule:
    """Length, learning rate and batch of a training run.

    Linear warm-up, then constant, then a cosine down to ``floor`` over the last ``decay`` share
    of the steps. A run that has not begun to decay can be extended without loss. With ``muon``,
    matrices take Muon's steps, as long on average as AdamW's.
    """

    steps: int
    learning_rate: float
    batch: int
    warmup: int = 100
    decay: float = 1.0
    floor: float = 0.02
    weight_decay: float = 0.01
    checkpoint_every: int = 250
    muon: bool = False

    def rate(self, step: int) -> float:
        """Return the learning rate at a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        begin = max(self.warmup, self.steps * (1 - self.decay))
        share = max(0.0, (step - begin) / max(1, self.steps - begin))
        cosine = 0.5 * (1 + math.cos(math.pi * share))
        return self.learning_rate * (self.floor + (1 - self.floor) * cosine)


@dataclass(frozen=True)
class Progress:
    """State of a training run."""

    step: int
    steps: int
    loss: float
    seconds: float


class Average:
    """Exponential moving average of a module's weights."""

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in module.state_dict().items()}

    def update(self, module: torch.nn.Module, step: int) -> None:
        """Move the average towards the module's present weights."""
        moving = {n: v for n, v in module.state_dict().items() if v.is_floating_point()}
        update_average(self.weights, moving, self.decay, step)


def train(
    module: torch.nn.Module,
    step_loss: Step,
    schedule: Schedule,
    checkpoint: Path,
    seed: int,
    average: Average | None = None,
) -> Iterator[Progress]:
    """Train a module and yield progress; resume from ``checkpoint`` if it exists.

    ``step_loss(step, generator)`` returns the loss; its randomness comes from the generator,
    which is seeded from (seed, step), so a resumed run continues as if never interrupted.
    """
    optimizers = _optimizers(module, schedule)
    start = 0
    if checkpoint.exists():
        state = load_state(checkpoint)
        module.load_state_dict(state["module"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        start = state["step"]
        if average is not None:
            average.weights = state["average"]
    began = time.monotonic()
    for step in range(start, schedule.steps):
        loss = step_loss(step, torch.Generator().manual_seed(seed * 1_000_003 + step))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step) * group["unit"]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if average is not None:
            average.update(module, step)
        done = step + 1
        if done % schedule.checkpoint_every == 0 or done == schedule.steps:
            state = {"module": module.state_dict(), "step": done}
            state["optimizers"] = [optimizer.state_dict() for optimizer in optimizers]
            if average is not None:
                state["average"] = average.weights
            save_state(checkpoint, state)
        yield Progress(done, schedule.steps, float(loss.detach()), time.monotonic() - began)


def fast_products() -> torch.autocast:
    """Compute products in bfloat16 where the processor has such; others emulate them slowly."""
    supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast("cpu", torch.bfloat16, enabled=supported)


def _optimizers(module: torch.nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Make AdamW for all weights, or Muon for matrices; a group's ``unit`` scales the rate.

    Muon's entries are brought to the mean square of AdamW's, 0.2 (arXiv 2502.16982).
    """
    decay, muon = schedule.weight_decay, schedule.muon
    matrices = [each for each in module.parameters() if muon and each.ndim == 2]
    others = [each for each in module.parameters() if not (muon and each.ndim == 2)]
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([{"params": others, "unit": 1.0}], weight_decay=decay, fused=True)
    ]
    if matrices:
        groups = [{"params": [each], "unit": 0.2 * each.shape[1] ** 0.5} for each in matrices]
        made.append(Muon(groups, weight_decay=decay))
    return made
