"""Saves what changes while a run trains, and puts it back when the run goes on.

TrainingState -> save -> checkpoints/last.pt -> resume -> TrainingState; save_best -> checkpoints/best.pt
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from training.data.statistics import Statistics
from training.fitting.schedules import LearningRateSchedule
from training.runs.checkpoint import (
    BestWeights,
    Checkpoint,
    Progress,
    cut_log,
    load_checkpoint,
    save_best,
    save_checkpoint,
)
from training.runs.run_folder import RunFolder


@dataclass(frozen=True)
class TrainingState:
    """All that changes while a run trains. Random draws are not part of it: they follow from the seed and the step.

    Attributes:
        progress: the epoch, the step, and the best score so far.
        model: the network that is trained.
        optimiser: the optimiser, as accelerate wraps it.
        schedule: the schedule of the learning rate.
        average: the copy of the network with averaged weights; None if the run keeps no average.
        scaler: the scaler of the loss at precision fp16; None at every other precision.
    """

    progress: Progress
    model: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: LearningRateSchedule
    average: AveragedModel | None
    scaler: torch.amp.GradScaler | None

    @property
    def evaluated_model(self) -> nn.Module:
        """The network that is validated and kept: the one with averaged weights if there is one."""
        return self.average.module if self.average is not None else self.model

    def save(self, run: RunFolder) -> None:
        """Writes the checkpoint from which the run goes on.

        Raises:
            RunError: the file cannot be written; the checkpoint before is intact.
        """
        checkpoint = Checkpoint(
            progress=self.progress,
            model=self.model.state_dict(),
            optimiser=self.optimiser.state_dict(),
            schedule=self.schedule.state_dict(),
            average=self.average.state_dict() if self.average is not None else None,
            scaler=self.scaler.state_dict() if self.scaler is not None else None,
        )
        save_checkpoint(checkpoint, run.last_checkpoint)

    def save_best(
        self, run: RunFolder, class_names: tuple[str, ...], statistics: Statistics, metrics: Mapping[str, float]
    ) -> None:
        """Writes the weights of `evaluated_model` as the best ones.

        Args:
            run: the run's folder.
            class_names: C names, in the order of the logits.
            statistics: the mean and std that inputs are normalised by.
            metrics: the metrics of the epoch that has ended, with its number as `epoch`.

        Raises:
            RunError: the file cannot be written; the weights before are intact.
        """
        best = BestWeights(
            model=self.evaluated_model.state_dict(),
            class_names=class_names,
            mean=statistics.mean,
            std=statistics.std,
            epoch=int(metrics["epoch"]),
            metrics={name: float(metrics[name]) for name in ("val_loss", "val_accuracy")},
        )
        save_best(best, run.best_checkpoint)

    def resume(self, run: RunFolder) -> None:
        """Puts everything back to where it was when the run's last checkpoint was written.

        Raises:
            RunError: the checkpoint cannot be read.
        """
        checkpoint = load_checkpoint(run.last_checkpoint)
        self.model.load_state_dict(checkpoint.model)
        self.optimiser.load_state_dict(checkpoint.optimiser)
        self.schedule.load_state_dict(checkpoint.schedule)
        if self.average is not None and checkpoint.average is not None:
            self.average.load_state_dict(checkpoint.average)
        if self.scaler is not None and checkpoint.scaler is not None:
            self.scaler.load_state_dict(checkpoint.scaler)
        vars(self.progress).update(vars(checkpoint.progress))


def cut_logs(run: RunFolder, progress: Progress) -> None:
    """Removes from the logs what a killed run wrote after its last checkpoint: it is done again."""
    cut_log(run.history_file, keep=progress.epoch)
    cut_log(run.steps_file, keep=progress.global_step)
