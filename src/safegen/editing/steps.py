"""The algorithm of the edit, without its infrastructure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from safegen.averaging import update_average
from safegen.editing.batches import BatchSource
from safegen.editing.gradients import Gradients
from safegen.editing.settings import EditSettings
from safegen.editing.state import TrainingState
from safegen.errors import SafegenError

ATTACK_EVERY = 2
"""Steps between two moves of the adversaries; each move costs a pass of the denoiser."""


@dataclass(frozen=True)
class StepLosses:
    """Losses of one step.

    Attributes:
        step: number of the step, from 0.
        redirect: L_m, the loss of the unsafe half.
        preserve: L_p, the loss of the benign half, and of the text's stream on both halves.
        multiplier: weight of L_p in this step, lambda_p.
        share: share of the full step that was taken.
    """

    step: int
    redirect: float
    preserve: float
    multiplier: float
    share: float


def edit_steps(
    state: TrainingState,
    source: BatchSource,
    gradients: Gradients,
    settings: EditSettings,
    start: int = 0,
) -> Iterator[StepLosses]:
    """Train the denoiser to predict the censored form of unsafe pictures (arXiv 2404.06666).

    From z_t = a z_u + s n the model learns to predict z_c under any text (L_m); from a noised
    benign picture, the frozen original's prediction (L_p). In joint attention, L_p also holds the
    text's stream on both (``safegen.editing.text_stream``). The weights follow the gradient of
    lambda_m L_m + lambda_p L_p; their moving average is the result.
    """
    for step in range(start, settings.optimisation.steps):
        if state.rehearsal.is_due(step):
            state.rehearsal.rehearse(step)
        l_m = l_p = 0.0
        for part in range(settings.optimisation.gradient_accumulation):
            unsafe, benign = source.halves(step, part)
            weight, attacking = state.constraint.multiplier, step % ATTACK_EVERY == 0
            with state.rehearsal.moved(step):
                redirect, held = gradients.redirect(unsafe, weight, attacking)
            preserve = gradients.preserve(benign, weight)
            l_m, l_p = l_m + float(redirect), l_p + float(preserve) + float(held)
        _refuse_divergence(step, l_m, l_p)
        multiplier = state.constraint.multiplier
        state.constraint.observe(l_p)
        share = settings.optimisation.schedule(step) * state.constraint.step_share
        state.optimizers.step(share)
        update_average(state.average, state.weights, settings.optimisation.ema_decay, step)
        yield StepLosses(step, l_m, l_p, multiplier, share)


def _refuse_divergence(step: int, redirect: float, preserve: float) -> None:
    if not math.isfinite(redirect + preserve):
        raise SafegenError(
            f"step {step + 1}: the loss is {redirect} (redirect), {preserve} (preserve); "
            "lower --learning-rate or use --precision fp32"
        )
