"""Reads what a search varies from a YAML file: for each setting, the values or the range to try.

space.yaml -> load_space -> Dimension by setting -> Dimension.suggest(trial) -> overrides of a TrainConfig
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import optuna
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.config.file import check_names, explain, read_yaml
from training.config.settings import TrainConfig
from training.errors import ConfigError

_DEFAULT_GRID_POINTS = 5


class Dimension(BaseModel):
    """The values of one setting: a list, or a range."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: tuple[Any, ...] | None = Field(default=None, min_length=1, description="These, and no others")
    low: float | None = Field(default=None, description="The range's lower end")
    high: float | None = Field(default=None, description="The range's upper end")
    log: bool = Field(default=False, description="Even in the logarithm: for rates and decays")
    integer: bool = Field(default=False, description="Whole numbers only")
    points: int = Field(default=_DEFAULT_GRID_POINTS, ge=1, description="For a grid: how many of the range to try")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.values is None) == (self.low is None or self.high is None):
            raise ValueError("give either values: [...], or low: and high:")
        if self.low is not None and self.high is not None:
            if self.low >= self.high:
                raise ValueError(f"low ({self.low}) must be below high ({self.high})")
            if self.log and self.low <= 0:
                raise ValueError(f"low ({self.low}) must be positive in a logarithmic range")
        return self

    def grid(self) -> list[Any]:
        """Returns the values of a grid, as `suggest` returns them."""
        if self.values is not None:
            return [_scalar(value) for value in self.values]
        assert self.low is not None
        assert self.high is not None
        spaced = np.geomspace if self.log else np.linspace
        points = spaced(self.low, self.high, self.points).tolist()
        return sorted({round(point) for point in points}) if self.integer else points

    def suggest(self, name: str, trial: optuna.Trial) -> Any:
        """Asks a trial for a value of the setting `name`. A list comes back as JSON text."""
        if self.values is not None:
            return trial.suggest_categorical(name, [_scalar(value) for value in self.values])
        assert self.low is not None
        assert self.high is not None
        if self.integer:
            return trial.suggest_int(name, round(self.low), round(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


def load_space(path: Path) -> dict[str, Dimension]:
    """Reads a search space.

    Raises:
        ConfigError: the file cannot be read, names no setting or an unknown one, or describes one wrongly.
    """
    content = read_yaml(path)
    check_names(content, TrainConfig.model_fields, origin=str(path))
    if not content:
        raise ConfigError(f"{path} names no setting to vary.")
    space = {}
    for name, dimension in content.items():
        try:
            space[name] = Dimension.model_validate(dimension)
        except ValidationError as error:
            raise ConfigError(f"{path}: {name}: {explain(error)}") from error
    return space


def to_overrides(chosen: Mapping[str, Any], space: Mapping[str, Dimension]) -> dict[str, Any]:
    """Returns the values that a trial chose as settings; JSON text becomes a list again."""
    overrides = {}
    for name, value in chosen.items():
        listed = space[name].values or ()
        is_list = any(isinstance(candidate, list | tuple) for candidate in listed)
        overrides[name] = json.loads(value) if is_list and isinstance(value, str) else value
    return overrides


def _scalar(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | tuple) else value
