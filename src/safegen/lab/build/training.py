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

Step = Callable[[int, torch.Generator], torch.Tensor]


@dataclass(frozen=True)
class Schedule:
    """Length, learning rate and batch of a training run.

    Linear warm-up, then constant, then a cosine down to ``floor`` over the last ``decay`` share
    of the steps. A run that has not begun to decay can be extended without loss.
    """

    steps: int
    learning_rate: float
    batch: int
    warmup: int = 100
    decay: float = 1.0
    floor: float = 0.02
    weight_decay: float = 0.01
    checkpoint_every: int = 250

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
    optimizer = torch.optim.AdamW(
        module.parameters(),
        lr=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        fused=True,
    )
    start = 0
    if checkpoint.exists():
        state = load_state(checkpoint)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
        if average is not None:
            average.weights = state["average"]
    began = time.monotonic()
    for step in range(start, schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        loss = step_loss(step, torch.Generator().manual_seed(seed * 1_000_003 + step))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if average is not None:
            average.update(module, step)
        done = step + 1
        if done % schedule.checkpoint_every == 0 or done == schedule.steps:
            state = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
            state["step"] = done
            if average is not None:
                state["average"] = average.weights
            save_state(checkpoint, state)
        yield Progress(done, schedule.steps, float(loss.detach()), time.monotonic() - began)
