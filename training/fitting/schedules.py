"""How the learning rate changes over the steps of a run, with torch's own schedulers.

optimiser -> LearningRateSchedule: .after_step() each step, .after_epoch(val_loss) each epoch -> the groups' rates
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from training.config.groups import OptimSettings

_WARMUP_START = 0.01  # the part of the full rate that a warm-up starts with
_ONE_CYCLE_RISE = 0.3  # the part of the cycle in which the rate rises: torch's default


class LearningRateSchedule:
    """The learning-rate schedule of one run. `reduce-on-plateau` moves at each epoch, all others at each step.

    Args:
        optimiser: the optimiser that gets the rates.
        config: the settings of the optimisation.
        steps_per_epoch: the number of optimiser steps in an epoch.
    """

    def __init__(self, optimiser: Optimizer, config: OptimSettings, steps_per_epoch: int) -> None:
        warmup_steps = round(config.warmup_epochs * steps_per_epoch)
        main_steps = config.epochs * steps_per_epoch - warmup_steps
        self.plateau: ReduceLROnPlateau | None = None
        self.stepwise: LRScheduler | None
        if config.schedule == "one-cycle":  # its rise is its warm-up
            rise = warmup_steps / (config.epochs * steps_per_epoch) if warmup_steps else _ONE_CYCLE_RISE
            rates = [group["lr"] for group in optimiser.param_groups]
            self.stepwise = OneCycleLR(
                optimiser, rates, total_steps=config.epochs * steps_per_epoch + 1, pct_start=rise
            )
            return
        if config.schedule == "reduce-on-plateau":
            self.plateau = ReduceLROnPlateau(optimiser, factor=config.gamma, patience=config.plateau_patience)
            self.stepwise = _warmup(optimiser, warmup_steps) if warmup_steps else None
            return
        main = _main(optimiser, config, steps_per_epoch, warmup_steps, main_steps)
        self.stepwise = main
        if warmup_steps:
            self.stepwise = SequentialLR(optimiser, [_warmup(optimiser, warmup_steps), main], [warmup_steps])

    def after_step(self) -> None:
        """Moves the schedule by one optimiser step."""
        if self.stepwise is not None:
            self.stepwise.step()

    def after_epoch(self, val_loss: float) -> None:
        """Gives `reduce-on-plateau` the validation loss of an epoch; does nothing to other schedules."""
        if self.plateau is not None:
            self.plateau.step(val_loss)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the schedule, for a checkpoint."""
        return {
            "stepwise": self.stepwise.state_dict() if self.stepwise is not None else None,
            "plateau": self.plateau.state_dict() if self.plateau is not None else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts the schedule back into a saved state. The optimiser loads its rates itself."""
        if self.stepwise is not None:
            self.stepwise.load_state_dict(state["stepwise"])
        if self.plateau is not None:
            self.plateau.load_state_dict(state["plateau"])


def _warmup(optimiser: Optimizer, steps: int) -> LRScheduler:
    return LinearLR(optimiser, start_factor=_WARMUP_START, total_iters=steps)


def _main(
    optimiser: Optimizer, config: OptimSettings, steps_per_epoch: int, warmup_steps: int, main_steps: int
) -> LRScheduler:
    match config.schedule:
        case "step":
            return StepLR(optimiser, config.step_epochs * steps_per_epoch, config.gamma)
        case "multi-step":
            milestones = [epoch * steps_per_epoch - warmup_steps for epoch in config.milestones]
            return MultiStepLR(optimiser, milestones, config.gamma)
        case "exponential":  # a factor of gamma in an epoch, spread over its steps
            return ExponentialLR(optimiser, config.gamma ** (1 / steps_per_epoch))
        case "cosine":
            return CosineAnnealingLR(optimiser, T_max=main_steps)
    return ConstantLR(optimiser, factor=1.0, total_iters=0)
