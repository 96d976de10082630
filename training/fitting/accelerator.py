"""The machine made ready, and what a run normalises by, before the loop begins.

config -> make_accelerator: device, precision, processes, threads; choose_statistics: mean, std -> train.Trainer
"""

from __future__ import annotations

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


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Returns what knows the device, the precision and the other processes.

    Raises:
        ConfigError: the device is not there, it cannot compute in that precision, or the processes cannot share a
            batch.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("There is no CUDA device here: set device: cpu, or auto.")
    if config.device == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("There is no Apple GPU here: set device: cpu, or auto.")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if config.deterministic:
        set_deterministic()
    on_cpu = config.device == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    if on_cpu and config.precision == "fp16":
        raise ConfigError("fp16 needs a GPU: set precision: bf16, or float32.")
    if not torch.distributed.is_initialized():  # a search trains many times in one process, in any precision
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        mixed_precision=_PRECISIONS[config.precision],
        cpu=on_cpu,
        # Frozen layers have no gradients; those before them are still passed through.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=bool(config.frozen_epochs))],
    )
    if config.batch_size % accelerator.num_processes:
        raise ConfigError(
            f"batch_size ({config.batch_size}) is over all processes: it must be a multiple of "
            f"{accelerator.num_processes}, their number."
        )
    return accelerator


def choose_statistics(config: TrainConfig, data: PreparedData, training: PixelStore) -> Statistics:
    """Returns mean and std: given, those of the pretrained weights, or those of the training split."""
    if config.mean is not None and config.std is not None:
        return Statistics(config.mean, config.std)
    if config.statistics == "pretrained" or (config.statistics == "auto" and config.pretrained):
        return pretrained_statistics(config)
    return data.training_statistics(training)
