"""Finds a learning rate to train with, by the range test of Smith 2015 (https://arxiv.org/abs/1506.01186).

Trainer -> range_test: the rate rises at each step until the loss explodes -> suggestion, plot; the weights are put back
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from training.config.settings import TrainConfig
from training.data.pixel_store import Batch
from training.data.prepared import prepare_data
from training.errors import DivergedError
from training.fitting.accelerator import make_accelerator
from training.fitting.seeding import seed_step
from training.fitting.stages import Stage
from training.fitting.trainer import Trainer
from training.networks.transfer import set_training_mode
from training.runs.progress import Reporter
from training.runs.run_folder import create_run
from training.runs.tracking import Tracker

_SMOOTHING = 0.9  # the decay of the exponential average of the losses
_EXPLODED = 4.0  # times the lowest loss: the test ends there, as fastai's does
# The test draws its random numbers as an epoch that no training reaches.
_TEST_EPOCH = 2**31 - 1


@dataclass(frozen=True)
class RangeTest:
    """What a range test measured.

    Attributes:
        learning_rates: the rate of each step, rising.
        losses: the training loss before each step, smoothed.
        suggestion: the rate to train with: where the loss falls fastest, but at most a tenth of `highest`.
        highest: the rate of the lowest loss. Training diverges somewhere above it.
    """

    learning_rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float
    highest: float


def find_learning_rate(config: TrainConfig, *, lowest: float, highest: float, steps: int) -> tuple[RangeTest, Path]:
    """Tests rates in the folder of a new run; returns what was found and the path of its plot.

    Args:
        config: the configuration that the rate is for.
        lowest: the rate of the first step.
        highest: the rate of the last step, if the loss does not explode before.
        steps: the largest number of steps.

    Raises:
        TrainingError: what went wrong and the way out.
    """
    accelerator = make_accelerator(config)
    reporter = Reporter(active=accelerator.is_main_process)
    run = create_run(config)
    data = prepare_data(config, run.path)
    trainer = Trainer(config, run, data, accelerator, reporter, Tracker(active=False, reporter=reporter))
    found = range_test(trainer, lowest=lowest, highest=highest, steps=steps)
    return found, save_range_test(found, run.path)


def range_test(trainer: Trainer, *, lowest: float = 1e-6, highest: float = 10.0, steps: int = 100) -> RangeTest:
    """Trains some steps with a rising learning rate, and puts the weights back.

    Args:
        trainer: the trainer of a run that has not begun.
        lowest: the rate of the first step. Parameters with a rate of their own start in proportion to it.
        highest: the rate of the last step, if the loss does not explode before.
        steps: the largest number of steps.

    Raises:
        DivergedError: the loss is not finite at the lowest rate already.
    """
    model, optimiser = trainer.model, trainer.optimiser
    saved_model = copy.deepcopy(model.state_dict())
    saved_optimiser = copy.deepcopy(optimiser.state_dict())
    stage, network = trainer.stage_for_epoch(0, None)
    scales = [group["lr"] for group in optimiser.param_groups]
    scales = [scale / max(scales) for scale in scales]
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    set_training_mode(model)
    try:
        with trainer.reporter.track("Range test", steps) as advance:
            for step, (images, labels) in enumerate(_batches(trainer, stage, steps)):
                rate = lowest * (highest / lowest) ** (step / max(1, steps - 1))
                for group, scale in zip(optimiser.param_groups, scales, strict=True):
                    group["lr"] = rate * scale
                seed_step(trainer.config.seed, _TEST_EPOCH, step)
                labels = labels.to(trainer.accelerator.device)
                optimiser.zero_grad()
                with trainer.accelerator.autocast():
                    logits = network(stage.vary(images.to(trainer.accelerator.device)))
                    loss = trainer.loss_function(logits, labels)
                trainer.accelerator.backward(loss)
                optimiser.step()
                average = _SMOOTHING * average + (1 - _SMOOTHING) * float(loss.detach())
                smoothed = average / (1 - _SMOOTHING ** (step + 1))
                if not math.isfinite(smoothed) or (losses and smoothed > _EXPLODED * min(losses)):
                    break
                rates.append(rate)
                losses.append(smoothed)
                advance(len(labels), f"loss {smoothed:.3f}")
    finally:
        model.load_state_dict(saved_model)
        optimiser.load_state_dict(saved_optimiser)
    if not losses:
        raise DivergedError(f"The loss is not finite even at a learning rate of {lowest:g}: look at the data.")
    return RangeTest(tuple(rates), tuple(losses), *_read(rates, losses))


def save_range_test(found: RangeTest, folder: Path) -> Path:
    """Writes `find_lr.json` and a plot; returns the plot's path."""
    from matplotlib.figure import Figure

    (folder / "find_lr.json").write_text(json.dumps(asdict(found), indent=2), encoding="utf-8")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(found.learning_rates, found.losses, color="#2563eb")
    axes.axvline(found.suggestion, color="#dc2626", linestyle="--", label=f"suggestion {found.suggestion:.2g}")
    axes.axvline(found.highest, color="#9ca3af", linestyle=":", label=f"lowest loss {found.highest:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss, smoothed", title="Learning-rate range test")
    axes.grid(alpha=0.3)
    axes.legend()
    path = folder / "find_lr.png"
    figure.savefig(path, dpi=120)
    return path


def _batches(trainer: Trainer, stage: Stage, steps: int) -> Iterator[Batch]:
    """Yields `steps` batches; goes through the training split as often as that needs."""
    order: list[torch.Tensor] = []
    epoch = 0
    while len(order) < steps:
        order += trainer.batch_order(epoch)
        epoch += 1
    yield from stage.training.batches(order[:steps], workers=trainer.config.workers)


def _read(rates: list[float], losses: list[float]) -> tuple[float, float]:
    """Returns the suggested rate, and the rate of the lowest loss."""
    lowest = losses.index(min(losses))
    if lowest < 2:
        return rates[0], rates[lowest]
    curve = torch.tensor(losses[: lowest + 1], dtype=torch.float64)
    slopes = torch.gradient(curve, spacing=(torch.tensor(rates[: lowest + 1], dtype=torch.float64).log(),))[0]
    # Networks without normalisation fall fastest just before they explode: a tenth of that rate is the older rule.
    return min(rates[int(slopes.argmin())], rates[lowest] / 10), rates[lowest]
