"""Runs are logged to MLflow here or on a server, and training goes on if that fails."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.training_runs import digits_config, make_trainer
from training.fitting.trainer import Trainer
from training.runs.progress import Reporter
from training.runs.run_folder import create_run
from training.runs.tracking import EXPERIMENT, Tracker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # MLflow and its many dependencies warn as they please
]


@pytest.fixture
def printed() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def tracker(printed: io.StringIO) -> Tracker:
    return Tracker(active=True, reporter=Reporter(console=Console(file=printed, width=500)))


def test_parameters_metrics_and_files_are_logged_and_a_resumed_run_goes_on(
    tmp_path: Path, tracker: Tracker, printed: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = digits_config(tmp_path, epochs=2, tracking="mlflow")
    run = create_run(config)
    tracker.start(config, run)
    trainer: Trainer = make_trainer(config, run)
    trainer.tracker = tracker
    trainer.fit()
    tracker.log_files(run.path)
    tracker.finish()
    first_id = tracker.run_id
    tracker.start(config, run)  # as after --resume
    tracker.finish()
    assert printed.getvalue() == ""
    assert tracker.run_id == first_id
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.info.status == "FINISHED"
    assert logged.data.params["learning_rate"] == "0.01"
    assert [metric.step for metric in client.get_metric_history(logged.info.run_id, "val_accuracy")] == [1, 2]
    assert "config.yaml" in {artifact.path for artifact in client.list_artifacts(logged.info.run_id)}


def test_server_that_is_not_there_is_told_once_and_training_goes_on(
    tmp_path: Path, tracker: Tracker, printed: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    config = digits_config(tmp_path, epochs=1)
    run = create_run(config)
    try:
        tracker.start(config, run)
    finally:
        mlflow.set_tracking_uri(before)
    trainer = make_trainer(config, run)
    trainer.tracker = tracker
    trainer.fit()
    tracker.finish()
    assert printed.getvalue().count("MLflow does not log this run") == 1
    assert run.best_checkpoint.is_file()


def test_without_mlflow_training_goes_on(
    tmp_path: Path, tracker: Tracker, printed: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    config = digits_config(tmp_path)
    tracker.start(config, create_run(config))
    tracker.log_metrics({"val_loss": 1.0}, 1)
    assert not tracker.active
    assert "MLflow does not log this run" in printed.getvalue()
