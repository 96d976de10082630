"""A search tries what its space names, shares and continues its study, and writes a configuration ready to train."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from PIL import Image

from tests.support.training_runs import ENVIRONMENT, digits_config
from training.config.file import load_config, save_config
from training.errors import ConfigError
from training.tuning.search_space import load_space
from training.tuning.study import Method, Search, open_study, tune

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("method", "trials"), [("grid", 8), ("random", 3), ("tpe", 3), ("gp", 3)])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_each_method_ends_in_a_configuration_ready_to_train(
    method: Method, trials: int, tmp_path: Path, space_file: Path
) -> None:
    config = digits_config(tmp_path, epochs=1)
    search = Search(config, load_space(space_file), method=method, pruner="none", trials=trials, study="digits")
    study = tune(search)
    assert len(study.get_trials(states=(TrialState.COMPLETE,))) == trials
    if method == "grid":
        assert len({str(trial.params) for trial in study.trials}) == 8
    best = load_config(search.folder / "best.yaml")
    assert best.architecture == study.best_params["architecture"]
    assert best.learning_rate == study.best_params["learning_rate"]
    assert (best.runs, best.name, best.publish) == (config.runs, config.name, True)
    runs = {trial.user_attrs["run"] for trial in study.trials}
    assert len(runs) == trials
    assert all((Path(run) / "history.jsonl").is_file() for run in runs)
    for plot in ("history", "slice"):
        with Image.open(search.folder / f"{plot}.png") as image:
            assert image.width > 400


def _wait_until_stale(*, study_of: Search) -> None:
    """The database keeps whole seconds: two heartbeats must have been missed by the clock."""
    study = open_study(study_of)
    deadline = time.monotonic() + 30
    while not study._storage._get_stale_trial_ids(study._study_id) and time.monotonic() < deadline:  # type: ignore[attr-defined]
        time.sleep(0.1)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_study_goes_on_and_a_trial_whose_process_died_is_tried_again(
    tmp_path: Path, space_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.tuning.study._HEARTBEAT_S", 1)
    monkeypatch.setattr("training.tuning.study._GRACE_S", 6)  # a busy machine may hold a live heartbeat up
    search = Search(digits_config(tmp_path, epochs=1), load_space(space_file), method="random", trials=2, study="s")
    tune(search)
    script = (
        "import os, pathlib, sqlite3, time, tests.support.training_runs as runs\n"
        "import training.tuning.search_space as spaces, training.tuning.study as studies\n"
        "studies._HEARTBEAT_S, studies._GRACE_S = 1, 6\n"
        f"config = runs.digits_config(pathlib.Path({str(tmp_path)!r}), epochs=1)\n"
        f"search = studies.Search(config, spaces.load_space(pathlib.Path({str(space_file)!r})), study='s')\n"
        "def die(search, trial, *rest):\n"
        "    [d.suggest(n, trial) for n, d in search.space.items()]\n"
        # A trial that never had a heartbeat never misses one: it dies after its first, which a thread writes.
        f"    heartbeats = sqlite3.connect({str(tmp_path / 'runs' / 's' / 'study.db')!r})\n"
        "    beats = 'SELECT count(*) FROM trial_heartbeats WHERE trial_id = ?'\n"
        "    while not heartbeats.execute(beats, [trial._trial_id]).fetchone()[0]:\n"
        "        time.sleep(0.05)\n"
        "    os.kill(os.getpid(), 9)\n"
        "studies.run_trial = die\n"
        "studies.tune(search)\n"
    )
    subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, timeout=120, check=False)
    died = open_study(search).trials[-1]
    assert died.state == TrialState.RUNNING
    _wait_until_stale(study_of=search)
    study = tune(Search(search.config, search.space, method="random", trials=4, study="s"))
    assert study.trials[died.number].state == TrialState.FAIL
    again = [trial for trial in study.trials if trial.system_attrs.get("failed_trial") == died.number]
    assert [trial.params for trial in again] == [died.params]
    assert len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))) == 4


def test_two_processes_share_a_study(tmp_path: Path, space_file: Path) -> None:
    save_config(digits_config(tmp_path, epochs=1), tmp_path / "config.yaml")
    command = [sys.executable, "-m", "training", "tune", "--config", str(tmp_path / "config.yaml"), "--study", "both",
               "--space", str(space_file), "--trials", "4", "--processes", "2", "--method", "random"]  # fmt: skip
    outcome = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=200, check=False)
    assert outcome.returncode == 0, outcome.stderr
    study = optuna.load_study(study_name="both", storage=f"sqlite:///{tmp_path}/runs/both/study.db")
    done = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    assert 4 <= len(done) <= 5  # both may be at their last one
    assert len({str(trial.params) for trial in done}) == len(done)
    assert "best.yaml" in outcome.stderr


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_impossible_and_diverging_trials_are_given_up_not_fatal(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("schedule: {values: [multi-step, constant]}\nlearning_rate: {values: [1e9, 0.01]}\n")
    config = digits_config(tmp_path, epochs=1, optimiser="sgd", batchnorm=False)
    study = tune(Search(config, load_space(path), method="grid", trials=4, study="s"))
    states = [trial.state for trial in study.trials]
    assert states.count(TrialState.PRUNED) == 3
    assert study.best_params == {"schedule": "constant", "learning_rate": 0.01}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.filterwarnings("ignore:Heartbeat of storage")  # nothing is trained here
def test_processes_that_start_at_once_try_different_values(tmp_path: Path, space_file: Path) -> None:
    config, space = digits_config(tmp_path), load_space(space_file)
    studies = [open_study(Search(config, space, method="random", worker=worker)) for worker in (0, 1)]
    first, second = (study.ask().suggest_float("learning_rate", 0, 1) for study in studies)
    assert first != second


def test_database_that_cannot_be_opened_is_named(tmp_path: Path, space_file: Path) -> None:
    search = Search(digits_config(tmp_path), load_space(space_file), storage="sqlite:////nowhere/at/all/study.db")
    with pytest.raises(ConfigError, match=r"nowhere/at/all/study.db cannot be opened"):
        open_study(search)
