"""Searches for good settings: runs the trials of a study, in any number of processes that share its database.

space, config -> Study: sampler suggests -> Trainer.fit, pruned if it lags behind -> ... -> best.yaml, plots

A trial that dies with its process is noticed because its heartbeat is missing, and is tried again.
"""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from training.config.file import parse_config, save_config
from training.config.settings import TrainConfig
from training.data.prepared import PreparedData, prepare_data
from training.errors import ConfigError, DivergedError
from training.fitting.accelerator import make_accelerator
from training.fitting.trainer import Trainer
from training.runs.progress import Reporter
from training.runs.run_folder import create_run
from training.runs.tracking import Tracker
from training.tuning.search_space import Dimension, to_overrides
from training.tuning.study_record import check_study

Method = Literal["grid", "random", "tpe", "gp"]
Pruner = Literal["median", "hyperband", "none"]

_HEARTBEAT_S = 10
_GRACE_S = 30
_DATABASE_PATIENCE_S = 60  # SQLite lets one process write at a time
# Processes that start at once all make the tables. All but the first fail; they find the tables when they try again.
_OPENING_ATTEMPTS = 4
_OPENING_PAUSE_S = 0.3
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
# The settings that the pixels in memory depend on.
_DATA_SETTINGS = (
    "data", "download_folder", "val_fraction", "test_fraction", "channels", "image_size", "resize_size", "cache",
    "cache_limit_mb", "workers", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class Search:
    """A study to work on.

    Attributes:
        config: the configuration that all trials begin with.
        space: the settings that vary, and what is tried for each.
        method: how the values of a trial are chosen.
        pruner: the rule by which trials are given up early.
        trials: the number of trials that the study shall have in all.
        study: the name of the study.
        storage: the URL of the database of the study; None means an SQLite file in the folder of the study.
        worker: the number of this process. Processes that start at once try different values by it.
    """

    config: TrainConfig
    space: Mapping[str, Dimension]
    method: Method = "tpe"
    pruner: Pruner = "median"
    trials: int = 20
    study: str = "study"
    storage: str | None = None
    worker: int = 0

    @property
    def folder(self) -> Path:
        """The folder with the runs of the trials, the plots and the best configuration."""
        return self.config.runs / self.study


def tune(search: Search) -> optuna.Study:
    """Runs trials until the study has as many as it shall have, then writes its best configuration and its plots.

    A study that was begun before goes on.

    Returns:
        the study.

    Raises:
        ConfigError: the storage cannot be opened, the study was begun with something else, or no trial came to an end.
        DataError: the data cannot be found.
    """
    reporter = Reporter()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # heartbeats, matplotlib plots
    study = open_study(search)
    prepared: dict[tuple[Any, ...], PreparedData] = {}
    if len(study.get_trials(deepcopy=False, states=_FINISHED)) < search.trials:
        study.optimize(
            lambda trial: run_trial(search, trial, prepared, reporter),
            callbacks=[optuna.study.MaxTrialsCallback(search.trials, states=_FINISHED)],
        )
    write_outcome(search, study, reporter)
    return study


def open_study(search: Search) -> optuna.Study:
    """Opens a study, and makes it if there is none of its name.

    Raises:
        ConfigError: the storage cannot be opened, or the study was begun with other data, another space or settings.
        DataError: the data cannot be found.
    """
    search.folder.mkdir(parents=True, exist_ok=True)
    storage = _open_storage(search.storage or f"sqlite:///{search.folder / 'study.db'}")
    study = optuna.create_study(
        storage=storage,
        study_name=search.study,
        load_if_exists=True,
        direction="maximize" if search.config.monitor == "val_accuracy" else "minimize",
        pruner=_pruner(search.pruner),
    )
    check_study(study, search.config, search.space)
    # A study that goes on must not draw its first trials again, and two processes must not draw the same ones.
    place = (search.config.seed, len(study.get_trials(deepcopy=False)), search.worker)
    study.sampler = _sampler(search, seed=int(np.random.SeedSequence(place).generate_state(1)[0]))
    return study


def _open_storage(url: str) -> RDBStorage:
    for attempt in range(1, _OPENING_ATTEMPTS + 1):
        try:
            return RDBStorage(
                url,
                engine_kwargs={"connect_args": {"timeout": _DATABASE_PATIENCE_S}} if url.startswith("sqlite") else {},
                heartbeat_interval=_HEARTBEAT_S,
                grace_period=_GRACE_S,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )
        except Exception as error:  # an error of SQLAlchemy, or of any database driver
            if attempt == _OPENING_ATTEMPTS:
                raise ConfigError(f"The study's database {url} cannot be opened: {error}") from error
            time.sleep(attempt * _OPENING_PAUSE_S)
    raise AssertionError("unreachable")


def run_trial(
    search: Search, trial: optuna.Trial, prepared: dict[tuple[Any, ...], PreparedData], reporter: Reporter
) -> float:
    """Trains with the settings that a trial suggests; returns the best value of the monitored metric.

    Args:
        search: the study that the trial belongs to.
        trial: the trial.
        prepared: the data of earlier trials, by the settings that they depend on; those of this trial are added.
        reporter: prints the outcome.

    Raises:
        optuna.TrialPruned: the trial lags behind, diverges, or its settings exclude each other.
    """
    chosen = {name: dimension.suggest(name, trial) for name, dimension in search.space.items()}
    fixed = search.config.model_dump() | {"runs": search.folder, "name": f"trial-{trial.number}"}
    try:
        config = parse_config(fixed | to_overrides(chosen, search.space), origin=f"Trial {trial.number}")
        key = tuple(str(getattr(config, name)) for name in _DATA_SETTINGS)
        accelerator = make_accelerator(config)
        run = create_run(config)
        trial.set_user_attr("run", str(run.path))
        if key not in prepared:
            prepared[key] = prepare_data(config)
        tracker = Tracker(active=config.tracking == "mlflow", reporter=reporter)
        tracker.start(config, run)
        values: list[float] = []

        def on_epoch(metrics: dict[str, Any]) -> None:
            values.append(float(metrics[config.monitor]))
            trial.report(values[-1], step=int(metrics["epoch"]))
            if trial.should_prune():
                raise optuna.TrialPruned(f"behind other trials at epoch {metrics['epoch']}")

        status = "KILLED"
        try:
            Trainer(config, run, prepared[key], accelerator, Reporter(active=False), tracker).fit(on_epoch)
            status = "FINISHED"
        finally:
            tracker.finish(status)
    except (ConfigError, DivergedError) as error:
        reporter.line(f"Trial {trial.number}  {_describe(chosen)}  given up: {error}")
        raise optuna.TrialPruned(str(error)) from error
    except optuna.TrialPruned as error:
        reporter.line(f"Trial {trial.number}  {_describe(chosen)}  given up: {error}")
        raise
    best = max(values) if config.monitor == "val_accuracy" else min(values)
    reporter.line(f"Trial {trial.number}  {_describe(chosen)}  {config.monitor} {best:.4f}")
    return best


def write_outcome(search: Search, study: optuna.Study, reporter: Reporter) -> None:
    """Writes the best configuration, ready to train, and the plots.

    Raises:
        ConfigError: no trial came to an end.
    """
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise ConfigError(f"No trial of the study {search.study!r} came to an end: narrow the space, or more trials.")
    fixed = search.config.model_dump()
    config = parse_config(fixed | to_overrides(study.best_params, search.space), origin="The best trial")
    path = search.folder / "best.yaml"
    save_config(config, path)
    plots = plot_study(study, search.folder)
    reporter.line(f"Best: trial {study.best_trial.number}, {search.config.monitor} {study.best_value:.4f}")
    reporter.line(f"  {_describe(study.best_params)}")
    reporter.line(f"Train with it: python -m training train --config {path}")
    reporter.line(f"Plots: {', '.join(str(plot) for plot in plots)}")


def plot_study(study: optuna.Study, folder: Path) -> list[Path]:
    """Draws the history of a study, the importance of its settings and a slice through each; returns the paths."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from optuna.visualization import matplotlib as plots

    paths = []
    draw: dict[str, Callable[[optuna.Study], Any]] = {
        "history": plots.plot_optimization_history,
        "importance": plots.plot_param_importances,
        "slice": plots.plot_slice,
    }
    for name, plot in draw.items():
        with plt.style.context("default"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings that a study is young and that these plots are experimental
            try:
                axes = plot(study)
            except (ValueError, RuntimeError):  # importance needs several trials that differ in value
                continue
            figure = axes.flat[0].figure if hasattr(axes, "flat") else axes.figure
            figure.set_size_inches(max(8, 3 * len(study.best_params)) if name == "slice" else 8, 5)
            if name == "slice":
                for axis in figure.axes:
                    axis.tick_params(axis="x", rotation=30)
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=100, bbox_inches="tight")
            plt.close(figure)
            paths.append(path)
    return paths


def run_processes(command: Sequence[str], count: int) -> None:
    """Runs a command in several processes at once, and waits for them.

    Args:
        command: the command line after `python -m training`.
        count: the number of processes.

    Raises:
        ConfigError: one of them failed. It has printed why.
    """
    processes = [
        subprocess.Popen([sys.executable, "-m", "training", *command, "--processes", "1", "--worker", str(worker)])
        for worker in range(count)
    ]
    if any([process.wait() for process in processes]):
        raise ConfigError("A process of the search failed; the study keeps what was done: start it again to go on.")


def _sampler(search: Search, seed: int) -> optuna.samplers.BaseSampler:
    match search.method:
        case "grid":
            return optuna.samplers.GridSampler({name: dimension.grid() for name, dimension in search.space.items()})
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        case "gp":
            return optuna.samplers.GPSampler(seed=seed)


def _pruner(pruner: Pruner) -> optuna.pruners.BasePruner:
    match pruner:
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
        case "hyperband":
            return optuna.pruners.HyperbandPruner()
        case "none":
            return optuna.pruners.NopPruner()


def _describe(chosen: Mapping[str, Any]) -> str:
    return "  ".join(
        f"{name}={f'{value:.3g}' if isinstance(value, float) else value}" for name, value in chosen.items()
    )
