"""Processes that train one edit together, as started by ``accelerate launch``."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, reduce

from safegen.editing.batches import Batch

T = TypeVar("T")
SETTLING = 0.2
"""Seconds between the last exchange of the processes and the end of their group."""


class Processes:
    """This process among those that share each batch; the context holds their group open.

    A single process computes on the model's device, whatever device an earlier edit used.

    Args:
        device: device of the model.

    Attributes:
        device: device of this process.
        index: number of this process, from 0.
        count: number of processes.
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
            # gloo's threads need Python's lock to drop their last tensors; closing the group holds
            # the lock and waits for them.
            time.sleep(SETTLING)
            self._state.destroy_process_group()

    def model(self, denoiser: torch.nn.Module) -> Any:
        """Wrap the denoiser so that gradients are averaged over all processes."""
        if self.count == 1:
            return denoiser
        devices = [self.device] if self.device.type == "cuda" else None
        return torch.nn.parallel.DistributedDataParallel(denoiser, device_ids=devices)

    def own_part(self, batch: Batch) -> Batch:
        """Take this process's share of a batch, on its device."""
        return batch.part(self.index, self.count).to(self.device)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Mean over all processes."""
        shared: torch.Tensor = reduce(value, reduction="mean")
        return shared

    def agreed(self, value: T) -> T:
        """Take the first process's value, where rounding may make another one of the others."""
        values = [value]
        broadcast_object_list(values)
        return values[0]

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """Sum over all processes, on the CPU."""
        shared: torch.Tensor = reduce(value.to(self.device), reduction="sum")
        return shared.cpu()
