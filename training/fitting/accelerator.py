"""Prepares the device and the processes of a run, and chooses the mean and std that its images are normalised by.

config -> make_accelerator: device, precision, processes, threads; choose_statistics: mean, std -> Trainer
"""

from __future__ import annotations

import ctypes
import sys

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from training.config.settings import TrainConfig
from training.data.pixel_store import PixelStore
from training.data.prepared import PreparedData
from training.data.statistics import Statistics
from training.errors import ConfigError
from training.fitting.seeding import set_deterministic
from training.networks.build import pretrained_statistics

_PRECISIONS = {"float32": "no", "bf16": "bf16", "fp16": "fp16"}


# glibc/malloc/malloc.h
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4
_MOST_FREED = 2**31 - 1
_PAD_BYTES = 64 * 1024 * 1024


def keep_freed_memory() -> None:
    """Makes this process keep the memory that tensors leave, instead of giving it back to the kernel each time.

    torch asks for the memory of every output anew. On EfficientNet-Lite0 the kernel took 40 % of the CPU to give it and
    to clear it: features of 18 to 20 images a CPU second, and 34 to 46 without that (benchmarks/NOTES.md). Only glibc
    is told.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _MOST_FREED)
        mallopt(_M_TOP_PAD, _PAD_BYTES)


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Returns the `Accelerator` of a run: its device, its precision and its processes.

    It also sets the number of threads of torch, its determinism, and what becomes of freed memory.

    Raises:
        ConfigError: the device is not available or cannot compute in the precision, or the processes cannot share a
            batch evenly.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("There is no CUDA device here: set device: cpu, or auto.")
    if config.device == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("There is no Apple GPU here: set device: cpu, or auto.")
    keep_freed_memory()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.deterministic:
        set_deterministic()
    on_cpu = config.device == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    if on_cpu and config.precision == "fp16":
        raise ConfigError("fp16 needs a GPU: set precision: bf16, or float32.")
    if not torch.distributed.is_initialized():  # a search trains many times in one process, each in its own precision
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        mixed_precision=_PRECISIONS[config.precision],
        cpu=on_cpu,
        # A frozen layer has no gradients of its own, and DistributedDataParallel must not wait for them.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=bool(config.frozen_epochs))],
    )
    if config.batch_size % accelerator.num_processes:
        raise ConfigError(
            f"batch_size ({config.batch_size}) is over all processes: it must be a multiple of "
            f"{accelerator.num_processes}, their number."
        )
    return accelerator


def choose_statistics(config: TrainConfig, data: PreparedData, training: PixelStore) -> Statistics:
    """Returns the mean and std that images are normalised by.

    A mean and std that the configuration gives come first, then those that the pretrained weights were trained with,
    then those of the training split.

    Args:
        config: the configuration of the run.
        data: the data of the run.
        training: the images of the training split.
    """
    if config.mean is not None and config.std is not None:
        return Statistics(config.mean, config.std)
    if config.statistics == "pretrained" or (config.statistics == "auto" and config.pretrained):
        return pretrained_statistics(config)
    return data.training_statistics(training)
