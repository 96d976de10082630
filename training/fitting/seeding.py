"""Makes every random draw follow from one seed and from the step in which it is made.

seed, epoch, step, process -> seed_step -> augmentation, dropout, mixing of that step

So a checkpoint needs no state of a random generator: a run that goes on draws what it would have drawn.
"""

from __future__ import annotations

import os
import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed)  # libraries draw from the global generator
    torch.manual_seed(seed)


def seed_step(seed: int, epoch: int, step: int, rank: int = 0) -> None:
    """Seeds Python, NumPy and torch for one step of one process. The draws of different steps are independent.

    Args:
        seed: the seed of the run.
        epoch: the number of the epoch, from 0.
        step: the number of the step in the epoch, from 0.
        rank: the number of the process, from 0.
    """
    mixed = np.random.SeedSequence((seed, epoch, step, rank)).generate_state(1)[0]
    seed_everything(int(mixed))


def set_deterministic() -> None:
    """Makes torch refuse operations whose result varies from run to run. Some are slower on GPUs then."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it before its first use
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
