"""The state of a run on disk: written whole or not at all, so that a kill at any moment leaves one that is good.

train.py -> TrainingState -> save: temporary file, fsync, rename -> last.pt -> load -> train.py goes on
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from training.errors import RunError


@dataclass
class Progress:
    """Where a run is, in plain numbers.

    Attributes:
        epoch: the epoch that is next, or under way; from 0.
        step: its steps that are done.
        global_step: all steps that are done.
        running: sums over the steps of the epoch that are done: loss, correct, images.
        best_score: of the best epoch: what is compared.
        best_epoch: its number.
        epochs_without_gain: since then.
        stopped_early: the run is over before its last epoch.
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
    """All that a run needs to go on, bit for bit; random draws follow from `seeding`."""

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
        model: parameters and buffers by name; the averaged ones where there is an average.
        class_names: in the order of the logits.
        mean: of each channel, that inputs are normalised by.
        std: likewise.
        epoch: from 0; -1 before any training.
        metrics: of that epoch.
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
    save_atomically({"progress": asdict(checkpoint.progress), **fields}, path)


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
    save_atomically({**vars(best), "model": dict(best.model)}, path)


def load_best(path: Path) -> BestWeights:
    """Reads the best weights.

    Raises:
        RunError: they cannot be read.
    """
    return BestWeights(**_load(path))


def save_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Writes tensors and plain values as a temporary sibling, then renames it.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        descriptor = os.open(path.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
        temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: Exception) -> RunError:
    """Returns the error that says what to do when a run's file cannot be written."""
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error).splitlines()[0]
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    way_out = "Free some space" if full else "Free space or make the folder writable"
    run_folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return RunError(f"{path} cannot be written: {reason}. {way_out}, then continue with --resume {run_folder}.")


def cut_log(path: Path, *, keep: int) -> None:
    """Cuts a log of JSON lines to its first `keep` lines: what a killed run wrote after its checkpoint is redone."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text("".join(lines[:keep]), encoding="utf-8")
    temporary.replace(path)


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


def _load(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise RunError(f"The checkpoint {path} cannot be read: {error}. Start a new run.") from error
    return content
