"""Reads and writes the checkpoints and the logs of a run. A kill at any moment leaves a checkpoint that is whole.

TrainingState -> Checkpoint -> temporary file, fsync, rename -> last.pt -> load_checkpoint -> TrainingState
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch

from app.store.publishing import delete_leftovers, open_atomically
from training.errors import RunError


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: the epoch that is next or under way, from 0.
        step: the number of steps of that epoch that are done.
        global_step: the number of steps of the run that are done.
        running: three sums over the steps of the epoch that are done: the loss of each image, the number of images
            that were classified correctly, the number of images.
        best_score: the monitored metric of the best epoch and then the other metric. More is better, so that a loss
            is negative.
        best_epoch: the number of the best epoch, from 0; -1 before the first has ended.
        epochs_without_gain: the number of epochs since the best one.
        stopped_early: whether early stopping has ended the run.
    """

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    running: tuple[float, float, float] = (0.0, 0.0, 0.0)
    best_score: tuple[float, float] = (float("-inf"), float("-inf"))
    best_epoch: int = -1
    epochs_without_gain: int = 0
    stopped_early: bool = False


@dataclass
class Checkpoint:
    """All that a run needs to go on bit for bit. Random draws are not part of it: `training.fitting.seeding` tells why.

    Attributes:
        progress: how far the run is.
        model: the parameters and buffers of the network, by name.
        optimiser: the state of the optimiser.
        schedule: the state of the learning-rate schedule.
        average: the parameters and buffers of the averaged network; None if the run keeps no average.
        scaler: the state of the loss scaler at precision fp16; None at every other precision.
    """

    progress: Progress
    model: Mapping[str, Any]
    optimiser: dict[str, Any]
    schedule: Mapping[str, Any]
    average: Mapping[str, Any] | None = None
    scaler: dict[str, Any] | None = None


@dataclass(frozen=True)
class BestWeights:
    """The weights of the best epoch, and what is needed to use them.

    Attributes:
        model: parameters and buffers by name; the averaged ones if the run keeps an average.
        class_names: the C names of the classes, in the order of the logits.
        mean: the mean of each channel, by which inputs are normalised.
        std: the standard deviation of each channel, by which inputs are normalised.
        epoch: the number of the best epoch, from 1.
        metrics: the validation loss and accuracy of that epoch.
    """

    model: Mapping[str, torch.Tensor]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    epoch: int
    metrics: dict[str, float] = field(default_factory=dict)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Writes a checkpoint.

    Raises:
        RunError: the disk is full, or the folder cannot be written; the checkpoint before is intact.
    """
    fields = {name: getattr(checkpoint, name) for name in ("model", "optimiser", "schedule", "average", "scaler")}
    with _replaced(path) as file:
        torch.save({"progress": asdict(checkpoint.progress), **fields}, file)


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        RunError: it cannot be read.
    """
    content = _load(path)
    return Checkpoint(progress=Progress(**content.pop("progress")), **content)


def save_best(best: BestWeights, path: Path) -> None:
    """Writes the best weights.

    Raises:
        RunError: the disk is full, or the folder cannot be written; the file before is intact.
    """
    with _replaced(path) as file:
        torch.save({**vars(best), "model": dict(best.model)}, file)


def load_best(path: Path) -> BestWeights:
    """Reads the best weights.

    Raises:
        RunError: they cannot be read.
    """
    return BestWeights(**_load(path))


def cannot_write(path: Path, error: Exception) -> RunError:
    """Returns the error that says what to do when a run's file cannot be written."""
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error).splitlines()[0]
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    way_out = "Free some space" if full else "Free space or make the folder writable"
    run_folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return RunError(f"{path} cannot be written: {reason}. {way_out}, then continue with --resume {run_folder}.")


def cut_log(path: Path, *, keep: int) -> None:
    """Cuts a log of JSON lines to its first `keep` lines: what a killed run wrote after its checkpoint is redone.

    Raises:
        RunError: the disk is full, or the folder cannot be written; the log is as it was.
    """
    if not path.is_file():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    with _replaced(path) as file:
        file.writelines(lines[:keep])


def append_log(path: Path, records: list[dict[str, Any]]) -> None:
    """Appends JSON lines.

    Raises:
        RunError: the disk is full, or the file cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def _replaced(path: Path) -> Iterator[BinaryIO]:
    """Opens a run's file to be replaced, and deletes what the run left beside it when it was killed."""
    try:
        delete_leftovers(path)
        with open_atomically(path) as file:
            yield file
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
        raise cannot_write(path, error) from error


def _load(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise RunError(f"The checkpoint {path} cannot be read: {error}. Start a new run.") from error
    return content
