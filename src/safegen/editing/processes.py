"""The processes that train one edit together, as ``accelerate launch`` starts them."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce

from safegen.editing.batches import Batch

SETTLING = 0.2
"""Seconds between the last exchange of several processes and the end of their group."""


class Processes:
    """This process among those that share each batch; in the block their group is up.

    A process by itself computes where the model is, whatever device an earlier edit was on.

    Args:
        device: of the model.

    Attributes:
        device: where this process computes.
        index: of this process, from 0.
        count: of the processes.
    """

    def __init__(self, device: torch.device) -> None:
        self._state = PartialState(cpu=device.type == "cpu")
        self.index, self.count = self._state.process_index, self._state.num_processes
        self.device = self._state.device if self.count > 1 else device

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.count > 1:
            # gloo's threads need Python's lock to drop their last tensors; the end of the group
            # waits for them, and holds it.
            time.sleep(SETTLING)
            self._state.destroy_process_group()

    def model(self, denoiser: torch.nn.Module) -> Any:
        """The denoiser, whose gradients are then those of all processes."""
        if self.count == 1:
            return denoiser
        devices = [self.device] if self.device.type == "cuda" else None
        return torch.nn.parallel.DistributedDataParallel(denoiser, device_ids=devices)

    def own_part(self, batch: Batch) -> Batch:
        """This process's share of a batch, on its device."""
        return batch.part(self.index, self.count).to(self.device)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean over all processes."""
        shared: torch.Tensor = reduce(value, reduction="mean")
        return shared

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, on the processor."""
        shared: torch.Tensor = reduce(value.to(self.device), reduction="sum")
        return shared.cpu()
