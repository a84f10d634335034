"""Random generators of one task, independent of all other tasks.

They are seeded with the task's id and seed, and with the attack's ``seed``.
"""

from __future__ import annotations

import numpy as np
import torch

from safegen.attacks import Task
from safegen.seeds import sample_seed


def task_generator(task: Task, seed: int) -> torch.Generator:
    """Make a generator for tensors."""
    return torch.Generator().manual_seed(sample_seed(task.id, task.seed, seed))


def task_rng(task: Task, seed: int) -> np.random.Generator:
    """Make a generator for arrays and choices."""
    return np.random.default_rng([seed, sample_seed(task.id), task.seed])
