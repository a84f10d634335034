"""Memory of an edit by component: predicted from configurations, and measured.

The prediction runs one step on fake tensors, which have sizes but no content, so it needs
neither the weights nor a device that could hold them. It counts the same tensors as the
measurement; both miss the device's own context and the workspaces of its kernels.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from safegen.editing.adapters import trained_form
from safegen.editing.memory.borrowing import Borrowed
from safegen.editing.memory.components import EditMemory, rehearsal_bytes, weight_bytes
from safegen.editing.memory.eight_bit import eight_bit_layers, shrink
from safegen.editing.memory.lean_layers import lean_layers
from safegen.editing.memory.precision import autocast, frozen_dtype
from safegen.editing.memory.recomputation import recomputation
from safegen.editing.optimizers import predicted_moment_bytes
from safegen.editing.settings import EditSettings
from safegen.errors import SafegenError
from safegen.models.anatomy import scope_names
from safegen.models.conditioning import TextCondition
from safegen.models.denoising import predict


class AllocatedMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the bytes of tensors made in the block.

    Attributes:
        now: bytes of live tensors.
        peak: most bytes alive at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        result = function(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(result):
            if storage._cdata not in self._alive | given:
                self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self._alive.add(storage._cdata)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, storage._cdata, size)

    def _remove(self, place: int, size: int) -> None:
        self._alive.discard(place)
        self.now -= size


def predict_memory(
    denoiser: Any, condition: TextCondition, latent: torch.Size, settings: EditSettings
) -> EditMemory:
    """Predict an edit's memory.

    Args:
        denoiser: a denoiser; only its class and configuration matter.
        condition: at least one text, as the denoiser takes it.
        latent: shape of a picture's latent (C, H, W).
        settings: settings of the edit.

    Raises:
        SafegenError: the denoiser's class reads values of its inputs, which have none here.
    """
    names = scope_names(denoiser, settings.scope)
    with FakeTensorMode():
        skeleton = type(denoiser).from_config(denoiser.config).eval()
        borrowed = Borrowed(skeleton, keep=False)
        form = trained_form(skeleton, names, settings.optimisation.lora_rank, settings.seed)
        if settings.computation.kept_precision == "int8":
            shrink(skeleton, form.names, borrowed)
        borrowed.convert_frozen(frozen_dtype(settings))
        step = _Step(skeleton, condition, latent, settings)
        with AllocatedMemory() as seen, _refusing_values(skeleton):
            step()
            if settings.optimisation.gradient_accumulation > 1:
                step()  # while the first step's gradients exist
        frozen, trained = weight_bytes(skeleton)
        gradients = sum(p.grad.nbytes for p in form.parameters.values() if p.grad is not None)
        moments = predicted_moment_bytes(form.parameters, settings.optimisation)
    activations = max(0, seen.peak - gradients)
    rehearsal = rehearsal_bytes(skeleton, settings)
    return EditMemory(frozen, trained, gradients, moments, trained, rehearsal, activations)


@contextmanager
def _refusing_values(denoiser: Any) -> Iterator[None]:
    try:
        yield
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise SafegenError(
            f"{type(denoiser).__name__}: its memory cannot be predicted, since it reads values, "
            "of a mask or of which experts to ask; --plain-kernels tries the edit without a "
            "prediction"
        ) from error


class _Step:
    """Forward and backward passes of both halves, those to any adversaries included."""

    def __init__(
        self, denoiser: Any, condition: TextCondition, latent: torch.Size, settings: EditSettings
    ) -> None:
        texts = 1 if settings.loss.guidance_scale == 1 else 2
        self._denoiser, self._settings = denoiser, settings
        self._halves = [
            (torch.zeros(rows, *latent), _blank(condition, rows))
            for rows in (texts * settings.data.unsafe_batch, texts * (settings.data.preserve_batch))
        ]

    def __call__(self) -> None:
        for (z_t, condition), redirecting in zip(self._halves, (True, False), strict=True):
            attacked = redirecting and self._settings.redirect.mixture.adversarial > 0
            self._learn(z_t, condition, attacked)

    def _learn(self, z_t: torch.Tensor, condition: TextCondition, attacked: bool) -> None:
        embeddings = list(condition.embeddings.values())
        for embedding in embeddings:
            embedding.requires_grad_(attacked)
        timesteps = torch.zeros(len(z_t), dtype=torch.long)
        with (
            lean_layers(self._denoiser),
            eight_bit_layers(self._denoiser),
            recomputation(self._denoiser, self._settings.computation.gradient_checkpointing),
        ):
            with autocast(self._settings, z_t.device):
                output = predict(self._denoiser, z_t, timesteps, condition)
            loss = output.pow(2).mean()
            if attacked:
                torch.autograd.grad(loss, embeddings, retain_graph=True)
            loss.backward()  # type: ignore[no-untyped-call]


def _blank(condition: TextCondition, count: int) -> TextCondition:
    """Make texts of the same form without content."""

    def zeros(value: torch.Tensor) -> torch.Tensor:
        return torch.zeros(count, *value.shape[1:], dtype=value.dtype)

    mask = None if condition.mask is None else zeros(condition.mask)
    added = {name: zeros(value) for name, value in condition.added.items()}
    return TextCondition(zeros(condition.hidden), mask, added)


def _storages(values: Any) -> list[torch.UntypedStorage]:
    leaves = tree_leaves(values)
    return [leaf.untyped_storage() for leaf in leaves if isinstance(leaf, torch.Tensor)]
