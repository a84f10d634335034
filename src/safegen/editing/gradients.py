"""Gradients of both halves of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from safegen.editing.batches import Batch, BatchSource
from safegen.editing.losses import half_losses, unsafe_distance
from safegen.editing.memory.precision import autocast
from safegen.editing.optimizers import Optimizers
from safegen.editing.processes import Processes
from safegen.editing.teacher import Teacher
from safegen.editing.text_stream import TextStream
from safegen.models.conditioning import TextCondition
from safegen.models.denoising import predict


class Gradients:
    """Add one half's gradient to the trained weights' gradients.

    The halves run one after the other, so memory holds the activations of one.

    Args:
        model: the denoiser, wrapped for all processes.
        source: source of the batches.
        optimizers: optimizers of the trained weights.
        processes: processes that share each batch.
        teacher: teacher of the benign half; None where its targets are the pictures themselves.
        text: the text's stream, which is held on both halves.
    """

    def __init__(
        self,
        model: Any,
        source: BatchSource,
        optimizers: Optimizers,
        processes: Processes,
        teacher: Teacher | None,
        text: TextStream,
    ) -> None:
        self._model = model
        self._source = source
        self._settings = source.settings
        self._optimizers = optimizers
        self._processes = processes
        self._teacher = teacher
        self._text = text

    def redirect(
        self, unsafe: Batch, weight: float, attacking: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add L_m's gradient, and that of L_p's part on the unsafe half, the text's stream.

        Returns the shares of the step of L_m and of this part of L_p, scalars.

        Args:
            unsafe: the unsafe half.
            weight: weight of L_p.
            attacking: also move the adversaries to where the model predicts more unsafe content.
        """
        batch = self._processes.own_part(unsafe)
        attacking = attacking and self._settings.redirect.mixture.adversarial > 0
        output, embeddings, text = self._predict(batch, attacking)
        if attacking:
            self._strengthen_adversaries(output, embeddings, batch)
        loss = half_losses(output, batch, self._source, redirecting=True).mean()
        held = text.mean()
        self._learn(self._settings.redirect.weight * loss + weight * held)
        return self._share(loss), self._share(held)

    def preserve(self, benign: Batch, weight: float) -> torch.Tensor:
        """Add L_p's gradient, weighted; returns the loss's share of the step, a scalar."""
        batch = self._processes.own_part(benign)
        original: list[torch.Tensor] | None = None
        if self._teacher is not None:
            with self._text.followed() as original:
                batch = self._teacher.answered(batch)
        output, _, text = self._predict(batch, False, original)
        losses = half_losses(output, batch, self._source, redirecting=False)
        loss = (losses + text).mean()
        self._learn(weight * loss)
        return self._share(loss)

    def _learn(self, loss: torch.Tensor) -> None:
        self._optimizers.backward(loss / self._settings.optimisation.gradient_accumulation)

    def _share(self, loss: torch.Tensor) -> torch.Tensor:
        """Share of the step, over all processes."""
        parts = self._settings.optimisation.gradient_accumulation
        return self._processes.mean(loss.detach()) / parts

    def _predict(
        self, batch: Batch, attacked: bool, original: Sequence[torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor], torch.Tensor]:
        """Return the denoiser's output, the text embeddings, with gradients if attacked, and the
        loss (B,) of the text's stream, whose ``original`` is asked for if not given."""
        z_t, timesteps, texts = batch.by_text()
        condition: TextCondition = self._source.conditions.table[texts.cpu()].to(z_t.device)

        def output() -> torch.Tensor:
            with autocast(self._settings, z_t.device):
                return predict(self._model, z_t, timesteps, condition)

        if original is None:
            original = self._text.of_original(output)
        for embedding in condition.embeddings.values():
            embedding.requires_grad_(attacked)
        with self._text.followed() as seen:
            predicted = output()
        text = self._text.losses(seen, original, batch.rows).mean(dim=1)
        return predicted, condition.embeddings, text

    def _strengthen_adversaries(
        self, output: torch.Tensor, embeddings: Mapping[str, torch.Tensor], unsafe: Batch
    ) -> None:
        distance = unsafe_distance(output, unsafe, self._source).sum()
        found = torch.autograd.grad(distance, tuple(embeddings.values()), retain_graph=True)
        conditions, (_, _, texts) = self._source.conditions, unsafe.by_text()
        pull = conditions.pull(texts.cpu(), dict(zip(embeddings, found, strict=True)))
        conditions.move_adversaries({n: self._processes.sum(p) for n, p in pull.items()})
