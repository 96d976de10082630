"""Logs the loss of every step, sums the losses of an epoch, and stops a run whose loss is not finite.

Trainer -> StepLog.add: the loss, still on the device -> StepLog.flush: Progress.running, steps.jsonl
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from training.errors import DivergedError
from training.runs.checkpoint import Progress, append_log

_STEPS_PER_FLUSH = 50  # reading a loss waits for the device: not at every step


@dataclass(frozen=True)
class _Step:
    """One step, not read from the device yet."""

    number: int
    epoch: int
    loss: torch.Tensor
    correct: torch.Tensor
    image_count: int
    learning_rate: float


class StepLog:
    """Keeps the losses of the last steps on the device until they are read together.

    Args:
        path: the file `steps.jsonl` of the run; None on a process that writes no files.
        progress: how far the run is. The log is numbered by its steps, and `flush` adds to its sums.
    """

    def __init__(self, path: Path | None, progress: Progress) -> None:
        self.path = path
        self.progress = progress
        self._pending: list[_Step] = []

    @property
    def is_full(self) -> bool:
        """Whether there are so many steps that it is time to read them."""
        return len(self._pending) >= _STEPS_PER_FLUSH

    def add(self, loss: torch.Tensor, correct: torch.Tensor, image_count: int, learning_rate: float) -> None:
        """Keeps the step that follows those of `progress`, without waiting for the device.

        Args:
            loss: the mean loss of the batch, a scalar without gradient.
            correct: the number of images that were classified correctly, an integer scalar.
            image_count: the number of images in the batch.
            learning_rate: the rate of the step, for the log.
        """
        number, epoch = self.progress.global_step + 1, self.progress.epoch + 1
        self._pending.append(_Step(number, epoch, loss, correct, image_count, learning_rate))

    def flush(self) -> float:
        """Reads the steps that were kept, adds them to the sums of the epoch, and logs them.

        Returns:
            the loss of the last step; NaN if there was none to read.

        Raises:
            DivergedError: a loss is infinite or not a number.
            RunError: the log cannot be written.
        """
        records: list[dict[str, float]] = []
        loss_sum, correct_sum, images = self.progress.running
        for step in self._pending:
            loss, correct = float(step.loss), int(step.correct)
            if not math.isfinite(loss):
                raise DivergedError(
                    f"The loss is {loss} at step {step.number} (epoch {step.epoch}), at a learning rate of "
                    f"{step.learning_rate:.3g}. Lower learning_rate (`find-lr` suggests one), or set gradient_clip: 1."
                )
            loss_sum, correct_sum = loss_sum + loss * step.image_count, correct_sum + correct
            images += step.image_count
            records.append(
                {
                    "step": step.number,
                    "epoch": step.epoch,
                    "loss": loss,
                    "accuracy": correct / step.image_count,
                    "learning_rate": step.learning_rate,
                }
            )
        self.progress.running = (loss_sum, correct_sum, images)
        self._pending.clear()
        if self.path is not None:
            append_log(self.path, records)
        return records[-1]["loss"] if records else math.nan
