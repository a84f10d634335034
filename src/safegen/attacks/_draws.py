"""What an attack on a task draws from, whatever other tasks there are.

The task counts by its id and seed; ``seed`` is the attack's.
"""

from __future__ import annotations

import numpy as np
import torch

from safegen.attacks import Task
from safegen.seeds import sample_seed


def task_generator(task: Task, seed: int) -> torch.Generator:
    """For tensors."""
    return torch.Generator().manual_seed(sample_seed(task.id, task.seed, seed))


def task_rng(task: Task, seed: int) -> np.random.Generator:
    """For arrays and choices."""
    return np.random.default_rng([seed, sample_seed(task.id), task.seed])
