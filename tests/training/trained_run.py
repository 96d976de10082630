"""A finished run made in seconds: scikit-learn's digits, a small network, one epoch."""

from __future__ import annotations

from pathlib import Path

from training.config.settings import TrainConfig
from training.run import run_training
from training.runs.run_folder import RunFolder


def train_digits(folder: Path, **settings: object) -> RunFolder:
    """Trains, evaluates, reports; publishes only if told to."""
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
