"""Reads the settings of a run from a YAML file and from flags, and names every mistake with the nearest valid name.

YAML file -> overridden by flags -> names and values checked -> TrainConfig -> save_config -> <run>/config.yaml
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from app.store.manifest import MODEL_NAME_PATTERN
from app.store.publishing import write_atomically
from app.store.references import name_of_file
from training.config.settings import TrainConfig
from training.errors import ConfigError


def load_config(path: Path | None, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Returns the configuration that a file and overrides make together.

    Args:
        path: a YAML file of settings, whose names may be written with `-` or `_`; None if there is no file.
        overrides: settings by name, which take the place of the file's.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or impossible.
    """
    settings = read_yaml(path) if path is not None else {}
    settings.update(overrides or {})
    return parse_config(settings, origin=str(path) if path else "The flags")


def parse_config(settings: Mapping[str, Any], *, origin: str) -> TrainConfig:
    """Checks settings and returns the configuration that they make.

    Args:
        settings: the settings by name.
        origin: where the settings come from, as the subject of the error's sentence.

    Raises:
        ConfigError: a setting is unknown or impossible.
    """
    check_names(settings, TrainConfig.model_fields, origin=origin)
    try:
        return TrainConfig.model_validate(dict(settings))
    except ValidationError as error:
        raise ConfigError(f"{origin}: {explain(error)}") from error


def check_names(names: Iterable[str], valid: Iterable[str], *, origin: str) -> None:
    """Refuses names that are not valid.

    Args:
        names: the names to check.
        valid: all names that are valid.
        origin: where the names come from, as the subject of the error's sentence.

    Raises:
        ConfigError: a name is not valid. The sentence has that name and the nearest valid one.
    """
    valid = sorted(valid)
    for name in names:
        if name not in valid:
            raise ConfigError(f"{origin}: there is no setting {name!r}.{nearest(name, valid)}")


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns " Did you mean ...?" with the nearest valid name, or a list of all valid names if none is near."""
    valid = list(valid)
    close = difflib.get_close_matches(name.lower(), valid, n=1, cutoff=0.5)
    if not close:  # initials, as in `lr`, or a part of a name, as in `rate`
        initials = [candidate for candidate in valid if "".join(re.findall(r"(?:^|_)(.)", candidate)) == name.lower()]
        close = (initials + [candidate for candidate in valid if name.lower() in candidate.lower()])[:1]
    return f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(valid)}."


def explain(error: ValidationError) -> str:
    """Returns one line that tells everything that is wrong with settings."""
    sentences = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "literal_error":
            valid = re.findall(r"'([^']+)'", problem["ctx"]["expected"])
            message = f"{problem['input']!r} is not one of them.{nearest(str(problem['input']), valid)}"
            message += f" Valid: {', '.join(valid)}." if "Did you mean" in message else ""
        elif problem["type"] == "string_pattern_mismatch" and problem["ctx"]["pattern"] == MODEL_NAME_PATTERN:
            proposal = name_of_file(Path(f"{problem['input']}.pt"))
            message = f"{problem['input']!r} has other characters than a-z, 0-9, '.', '_' and '-'. Try {proposal}."
        elif problem["type"] not in ("value_error", "extra_forbidden"):
            message = f"{message}, not {problem['input']!r}."
        sentences.append(f"{name}: {message}" if name else message)
    return " ".join(sentences)


def save_config(config: TrainConfig, path: Path) -> None:
    """Writes a configuration that `load_config` reads back as it was.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    settings = config.model_dump(mode="json")
    write_atomically(path, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).encode())


def read_yaml(path: Path) -> dict[str, Any]:
    """Returns the settings of a YAML file by name, with `_` for `-`.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or holds something other than settings.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold settings as 'name: value' lines.")
    return {str(name).replace("-", "_"): value for name, value in content.items()}
