"""Training runs that take a second or two: scikit-learn's digits and a small network."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from training.config.file import parse_config
from training.config.settings import TrainConfig
from training.data.prepared import prepare_data
from training.fitting.accelerator import make_accelerator
from training.fitting.trainer import OnEpoch, Trainer
from training.run import run_training
from training.runs.progress import Reporter
from training.runs.run_folder import RunFolder, create_run
from training.runs.tracking import Tracker

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
"""What a process that trains is started with."""


def digits_config(tmp_path: Path, **settings: object) -> TrainConfig:
    """Returns a configuration that trains for two short epochs; `settings` override it."""
    fixed: dict[str, object] = {
        "data": "digits",
        "architecture": "simple-cnn",
        "widths": (8, 16),
        "hidden_width": 16,
        "image_size": 8,
        "channels": 1,
        "horizontal_flip": False,
        "epochs": 2,
        "batch_size": 64,
        "learning_rate": 0.01,
        "runs": tmp_path / "runs",
        "store": tmp_path / "store",
        "tracking": "none",
        "device": "cpu",
        "threads": 1,
    }
    return parse_config(fixed | settings, origin="The test")


def make_trainer(config: TrainConfig, run: RunFolder | None = None) -> Trainer:
    """Returns the trainer of a run, silent; without `run`, of a new one."""
    run = run or create_run(config)
    reporter = Reporter(active=False)
    data = prepare_data(config, run.path)
    return Trainer(config, run, data, make_accelerator(config), reporter, Tracker(active=False, reporter=reporter))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads a log of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


class RunInterruptedError(Exception):
    """Ends a run as a kill between two epochs would."""


def interrupt_after(epochs: int) -> OnEpoch:
    """Returns what `Trainer.fit` shall be given to raise `RunInterruptedError` after so many epochs."""

    def on_epoch(metrics: dict[str, Any]) -> None:
        if metrics["epoch"] == epochs:
            raise RunInterruptedError

    return on_epoch


def train_digits(folder: Path, **settings: object) -> RunFolder:
    """Trains, evaluates and reports in `folder`; publishes only if `settings` say so."""
    settings = {
        "data": "digits",
        "architecture": "simple-cnn",
        "widths": (8, 16),
        "image_size": 16,
        "channels": 1,
        "batch_size": 64,
        "learning_rate": 5e-3,
        "epochs": 2,
        "augmentation": "affine",
        "horizontal_flip": False,
        "device": "cpu",
        "threads": 1,
        "publish": False,
        "tracking": "none",
        "runs": folder / "runs",
        "store": folder / "store",
        "name": "digits",
        **settings,
    }
    return run_training(TrainConfig.model_validate(settings))
