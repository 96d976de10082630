"""Logs the settings, the metrics and the files of a run to MLflow. Training goes on if that fails.

Tracker.start, .log_metrics, .log_files, .finish -> mlflow.db here, or the server that MLFLOW_TRACKING_URI names
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from training.config.settings import TrainConfig
from training.runs.progress import Reporter
from training.runs.run_folder import RunFolder, read_json, write_json

EXPERIMENT = "image-predictor"
LOCAL_URI = "sqlite:///mlflow.db"
_RUN_FILE = "tracking.json"
# A server that is not there must cost seconds, not MLflow's default of several minutes of retries.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class Tracker:
    """Logs one run. After its first failure it prints one line and logs no more.

    Args:
        active: whether to log at all.
        reporter: prints the first failure.
    """

    def __init__(self, *, active: bool, reporter: Reporter) -> None:
        self.active = active
        self.reporter = reporter
        self.run_id: str | None = None

    def start(self, config: TrainConfig, run: RunFolder) -> None:
        """Begins to log a run. A run that was resumed goes on in the same record."""

        def begin() -> None:
            for name, value in _PATIENCE.items():
                os.environ.setdefault(name, value)
            import mlflow

            logging.getLogger("alembic").setLevel(logging.WARNING)  # it would print each table that it makes
            logging.getLogger("mlflow").setLevel(logging.ERROR)
            if not os.environ.get("MLFLOW_TRACKING_URI"):
                mlflow.set_tracking_uri(LOCAL_URI)
            mlflow.set_experiment(EXPERIMENT)
            known = run.path / _RUN_FILE
            run_id = read_json(known)["run_id"] if known.is_file() else None
            active_run = mlflow.start_run(run_id=run_id, run_name=run.path.name, nested=True)
            self.run_id = active_run.info.run_id
            write_json(known, {"run_id": self.run_id})
            if run_id is None:
                settings = config.model_dump(mode="json")
                mlflow.log_params({name: _as_utf8(str(value)) for name, value in settings.items()})

        self._attempt(begin)

    def log_metrics(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Logs the metrics of an epoch; its number is from 1."""

        def log() -> None:
            import mlflow

            mlflow.log_metrics(dict(metrics), step=epoch)

        self._attempt(log)

    def log_files(self, folder: Path) -> None:
        """Logs the files that lie directly in the folder of a run, and so not its checkpoints."""

        def log() -> None:
            import mlflow

            for path in sorted(folder.iterdir()):
                if path.is_file() and path.name != _RUN_FILE:
                    mlflow.log_artifact(str(path))

        self._attempt(log)

    def finish(self, status: str = "FINISHED") -> None:
        """Ends the record with a status: `FINISHED`, `FAILED` or `KILLED`."""

        def end() -> None:
            import mlflow

            if self.run_id is not None:
                mlflow.end_run(status)

        self._attempt(end)

    def _attempt(self, log: Callable[[], Any]) -> None:
        if not self.active:
            return
        try:
            log()
        except Exception as error:  # any error: a tracker must not end a training
            self.active = False
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self.reporter.line(f"MLflow does not log this run: {reason}")


def _as_utf8(text: str) -> str:
    """Returns a text with an escape for each byte of a file's name that is no UTF-8, which no database takes."""
    return text.encode(errors="backslashreplace").decode()
