"""The folder of a run: the files in it, how it is made, and how it is found again.

config -> create_run -> runs/<name>-<time>/: config.yaml, environment.json, scan.json, split.json, history.jsonl,
         steps.jsonl, checkpoints/ -> evaluation, report, export -> open_run
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from app.store.publishing import write_atomically
from training.config.file import load_config, save_config
from training.config.settings import TrainConfig
from training.errors import RunError
from training.runs.versions import installed_versions

_LIBRARIES = ("torch", "torchvision", "timm", "accelerate", "numpy", "pillow", "scikit-learn", "optuna", "mlflow")


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, and the paths of its files.

    Attributes:
        path: the path of the folder.
    """

    path: Path

    @property
    def config_file(self) -> Path:
        """The file with the complete configuration."""
        return self.path / "config.yaml"

    @property
    def environment_file(self) -> Path:
        """The file with the versions of libraries, the commit, the number of threads and the seed."""
        return self.path / "environment.json"

    @property
    def baseline_file(self) -> Path:
        """The file with the loss and accuracy before training, and those of guessing."""
        return self.path / "baseline.json"

    @property
    def history_file(self) -> Path:
        """The log of the epochs: a JSON object a line."""
        return self.path / "history.jsonl"

    @property
    def steps_file(self) -> Path:
        """The log of the steps: a JSON object a line."""
        return self.path / "steps.jsonl"

    @property
    def best_checkpoint(self) -> Path:
        """The file with the weights of the best epoch."""
        return self.path / "checkpoints" / "best.pt"

    @property
    def last_checkpoint(self) -> Path:
        """The file with all that the run needs to go on."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def published_file(self) -> Path:
        """The file that says where the model was published; there is none before."""
        return self.path / "published.json"

    def config(self) -> TrainConfig:
        """Reads the configuration of the run.

        Raises:
            ConfigError: it cannot be read.
        """
        return load_config(self.config_file)


def create_run(config: TrainConfig) -> RunFolder:
    """Makes the folder of a new run and writes its configuration and environment.

    Raises:
        RunError: the folder cannot be written.
    """
    started = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    try:
        config.runs.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 1000):
            path = config.runs / (f"{config.name}-{started}" if attempt == 1 else f"{config.name}-{started}-{attempt}")
            try:
                path.mkdir()
                break
            except FileExistsError:  # two runs in one second
                continue
        (path / "checkpoints").mkdir()
        run = RunFolder(path)
        save_config(config, run.config_file)
        write_json(run.environment_file, environment(config))
    except OSError as error:
        raise RunError(
            f"The run's folder cannot be made in {config.runs.resolve()}: {error.strerror}. "
            "Make that folder writable, or choose another one with --runs."
        ) from error
    return run


def find_run(which: str, *, runs: Path, name: str | None = None, trained: bool = False) -> RunFolder:
    """Returns a run's folder.

    Args:
        which: the path of the folder, or `last` for the run that was begun last.
        runs: the folder that holds the runs.
        name: the name of the model that `last` looks for; None means any.
        trained: whether `last` looks only for runs that have weights. `find-lr` makes runs without.

    Raises:
        RunError: there is no such run.
    """
    if which != "last":
        run = RunFolder(Path(which))
        if not run.config_file.is_file():
            raise RunError(f"{which} is no run's folder: it has no config.yaml. Runs are in {runs}.")
        return run
    found = [RunFolder(path) for path in runs.iterdir()] if runs.is_dir() else []
    found = [run for run in found if run.config_file.is_file() and (name is None or run.config().name == name)]
    found = [run for run in found if run.best_checkpoint.is_file() or not trained]
    if not found:
        raise RunError(f"There is no run{f' of {name!r}' if name else ''} in {runs}{'' if trained else ' to resume'}.")
    return max(found, key=lambda run: run.config_file.stat().st_mtime_ns)


def environment(config: TrainConfig) -> dict[str, Any]:
    """Returns what the outcome of a run depends on beside its settings: versions, commit, device, threads, seed."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": installed_versions(_LIBRARIES),
        "git_commit": _git_commit(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "seed": config.seed,
        "command": sys.argv,
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON for people to read.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the file is as it was.
    """
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    write_atomically(path, text.encode(errors="backslashreplace"))  # a byte that is no UTF-8 becomes JSON's \udce9


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
