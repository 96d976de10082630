"""Runs a training from its configuration to the published model. A run that was killed goes on where it was.

config -> run folder -> prepare_data -> baseline -> Trainer.fit -> evaluate_run -> write_report -> publish_run
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from training.config.settings import TrainConfig
from training.data.prepared import PreparedData, prepare_data
from training.evaluation.baseline import measure_baseline
from training.evaluation.evaluate import EVALUATION_FILE, PREDICTIONS_FILE, RunEvaluation, evaluate_run
from training.evaluation.summary import summary
from training.export.publish import publish_run
from training.fitting.accelerator import make_accelerator
from training.fitting.trainer import Trainer
from training.pictures.report import write_report
from training.runs.progress import Reporter
from training.runs.run_folder import RunFolder, create_run, read_json, write_json
from training.runs.tracking import Tracker


def run_training(config: TrainConfig, run: RunFolder | None = None) -> RunFolder:
    """Trains, evaluates, reports and publishes.

    Args:
        config: the configuration of the run.
        run: the folder of a run to go on with; None makes a new one.

    Returns:
        the folder of the run.

    Raises:
        TrainingError: what went wrong and the way out. The work that is done is kept in the folder of the run.
    """
    accelerator = make_accelerator(config)
    reporter = Reporter(active=accelerator.is_main_process)
    run = _agree_on_run(config, run, accelerator)
    reporter.line(f"Run folder: {run.path}")
    tracker = Tracker(active=config.tracking == "mlflow" and accelerator.is_main_process, reporter=reporter)
    with accelerator.main_process_first():  # one process downloads the data and writes the split
        data = prepare_data(config, run.path)
    print_data_summary(data, reporter)
    tracker.start(config, run)
    status = "FAILED"
    try:
        trainer = Trainer(config, run, data, accelerator, reporter, tracker)
        if not run.last_checkpoint.is_file():
            write_baseline(trainer, data)
        trainer.fit()
        if accelerator.is_main_process:
            finish_run(run, data, reporter)
            tracker.log_files(run.path)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        reporter.line(f"Stopped. Continue with --resume {run.path}")
        raise
    finally:
        tracker.finish(status)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return run


def print_data_summary(data: PreparedData, reporter: Reporter) -> None:
    """Prints how many images there are, and warnings about them."""
    sizes = ", ".join(f"{len(data.split[name])} {name}" for name in ("train", "val", "test"))
    reporter.line(f"{data.scan.image_count} images of {len(data.class_names)} classes: {sizes}")
    for warning in data.warnings:
        reporter.line(f"Warning: {warning}")


def write_baseline(trainer: Trainer, data: PreparedData) -> None:
    """Measures the network before it has learned, prints how it compares with guessing, and writes `baseline.json`.

    Args:
        trainer: the trainer of a run that has not begun.
        data: the data of that run.
    """
    baseline = measure_baseline(*trainer.validate(trainer.stages.for_epoch(0)), data)
    trainer.reporter.line(baseline.sentence())
    if trainer.accelerator.is_main_process:
        write_json(trainer.run.baseline_file, asdict(baseline))


def finish_run(run: RunFolder, data: PreparedData, reporter: Reporter) -> None:
    """Evaluates, reports and publishes a run that is trained; leaves out what is done already. Main process only."""
    config = run.config()
    evaluated = (run.path / EVALUATION_FILE).is_file() and (run.path / PREDICTIONS_FILE).is_file()
    evaluation = RunEvaluation.read(run) if evaluated else evaluate_run(run, data)
    reporter.line(summary(evaluation.test))
    reporter.line(f"Report: {write_report(run)}")
    if config.publish and not run.published_file.is_file():
        folder = publish_run(
            run, data, metrics=evaluation.manifest_metrics(), temperature=evaluation.calibration.temperature
        )
        write_json(run.published_file, {"folder": str(folder)})
    if run.published_file.is_file():
        reporter.line(f"Published {read_json(run.published_file)['folder']}")


def _agree_on_run(config: TrainConfig, run: RunFolder | None, accelerator: Accelerator) -> RunFolder:
    """Returns the folder of the run on every process; the main one makes it if there is none."""
    if run is None and accelerator.is_main_process:
        run = create_run(config)
    shared = broadcast_object_list([str(run.path) if run is not None else None])
    return RunFolder(Path(shared[0]))
