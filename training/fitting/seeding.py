"""One seed for everything: every random draw follows from it and from where in the run it is made.

seed, epoch, step, process -> seed_step -> augmentation, dropout, mixing of that step

No generator's state must be saved, therefore: a run that resumes at a step draws what it would have drawn.
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
    """Seeds everything for one step of one process; different steps are independent of each other."""
    mixed = np.random.SeedSequence((seed, epoch, step, rank)).generate_state(1)[0]
    seed_everything(int(mixed))


def set_deterministic() -> None:
    """Makes torch refuse operations whose result varies from run to run; on GPUs some are slower then."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it before its first use
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
