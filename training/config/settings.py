"""All settings of a run together: what fits together, and what is filled in.

config.yaml + flags -> load_config -> TrainConfig (checked) -> every step of the run -> <run>/config.yaml

The configuration is frozen and flat: a flag, a line of the file and a dimension of a search have the same name. The
groups stand in groups.py.
"""

from __future__ import annotations

import os
from typing import Any, Self

from pydantic import field_validator, model_validator

from training.config.groups import (
    AugmentSettings,
    DataSettings,
    ModelSettings,
    OptimSettings,
    RunSettings,
    TransferSettings,
)


class Settings(DataSettings, AugmentSettings, ModelSettings, TransferSettings, OptimSettings, RunSettings):
    """All settings, each checked on its own. The flags of the command line are parsed into this."""

    @field_validator("data", "download_folder", "runs", "store", mode="before")
    @classmethod
    def _expand_home(cls, path: Any) -> Any:
        return os.path.expanduser(path) if isinstance(path, str) else path


class TrainConfig(Settings):
    """All settings, checked together.

    Settings that are not given follow the recipe for a small set of photos on a CPU: EfficientNet-Lite0 stays frozen,
    each photo passes through it a few times in all, and only a new head learns, in seconds.
    """

    @model_validator(mode="before")
    @classmethod
    def _fill_in_recipe(cls, settings: Any) -> Any:
        architecture = cls.model_fields["architecture"].default
        if not isinstance(settings, dict) or settings.get("architecture", architecture) != architecture:
            return settings
        settings = {"pretrained": True, **settings}
        if settings["pretrained"] is True:
            settings.setdefault("frozen_epochs", settings.get("epochs", cls.model_fields["epochs"].default))
            mixes = settings.get("mixup", 0) or settings.get("cutmix", 0)
            settings.setdefault("feature_views", 4 if settings["frozen_epochs"] and not mixes else 0)
        return settings

    @model_validator(mode="after")
    def _possible_together(self) -> Self:
        for problem in _contradictions(self):
            raise ValueError(problem)
        return self


def _contradictions(config: Settings) -> list[str]:
    """Returns a sentence for each pair of settings that cannot both hold, with the way out."""
    problems = []
    if not config.data:
        problems.append(
            "data is missing: give a folder with a folder per class, or one of digits, FashionMNIST, MNIST, CIFAR10."
        )
    if config.channels == 2:
        problems.append("channels must be 1 (grey) or 3 (RGB).")
    if config.val_fraction + config.test_fraction >= 1:
        problems.append("val_fraction and test_fraction leave nothing to train on: their sum must be below 1.")
    if config.resize_size is not None and config.resize_size < config.image_size:
        problems.append(f"resize_size ({config.resize_size}) must be at least image_size ({config.image_size}).")
    if len({config.statistics == "given", config.mean is not None, config.std is not None}) > 1:
        problems.append("statistics: given goes with mean and std, all three or none.")
    for values in (config.mean, config.std):
        if values is not None and len(values) != config.channels:
            problems.append(f"mean and std need {config.channels} values each, one for each channel.")
    if config.std is not None and min(config.std) <= 0:
        problems.append("std must be positive.")
    if config.statistics == "pretrained" and not config.pretrained:
        problems.append("statistics: pretrained needs pretrained: true.")
    if config.frozen_epochs and not config.pretrained:
        problems.append("frozen_epochs needs pretrained: true; a random backbone must learn.")
    if config.feature_views and not config.frozen_epochs:
        problems.append("feature_views needs frozen_epochs: features can only be kept while the backbone is frozen.")
    if config.feature_views and (config.mixup or config.cutmix):
        problems.append("mixup and cutmix mix pixels, feature_views keeps none: turn one of them off.")
    if not config.widths or min(config.widths) < 1:
        problems.append("widths needs at least one positive number.")
    if config.schedule == "multi-step" and not config.milestones:
        problems.append("schedule: multi-step needs milestones, such as [10, 20].")
    if list(config.milestones) != sorted(set(config.milestones)):
        problems.append("milestones must rise.")
    if config.warmup_epochs >= config.epochs:
        problems.append(f"warmup_epochs ({config.warmup_epochs}) must be below epochs ({config.epochs}).")
    if config.optimiser == "sgd" and config.nesterov and config.momentum == 0:
        problems.append("nesterov needs momentum: set nesterov: false, or a momentum above 0.")
    if config.crop_padding is not None and config.crop_padding >= config.image_size:
        problems.append("crop_padding must be below image_size: a border is reflected once.")
    return problems
