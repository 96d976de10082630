"""The commands `evaluate`, `report` and `export`: how good a model is, and how a run is published.

command line -> pydantic-settings -> cli_cmd -> evaluation, pictures.report, export
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field
from pydantic_settings import CliPositionalArg

from app.store.manifest import MODEL_NAME_PATTERN
from app.store.places import default_store


class Evaluate(BaseModel):
    """Measure how good a published model is on a folder of labelled images."""

    model: str = Field(
        description="NAME/VERSION, or NAME for the version that serves: the pinned one, or else the highest"
    )
    data: Path = Field(description="A folder that holds a folder of images for each class, with the name of the class")
    store: Path = Field(default_factory=default_store, description="The model store")
    output: Path | None = Field(default=None, description="A JSON file into which every figure is written, too")

    def cli_cmd(self) -> None:
        """Runs the command."""
        from training.data.names import printable
        from training.evaluation.published import evaluate_published
        from training.evaluation.summary import summary

        evaluation = evaluate_published(self.model, self.data, store_root=self.store)
        for path, reason in evaluation.unreadable:
            print(f"Left out: {printable(str(path))}: {reason}")
        for note in evaluation.notes:
            print(note)
        manifest = evaluation.manifest
        print(f"{manifest.name}/{manifest.version} on {printable(str(self.data))}")
        print(summary(evaluation.metrics))
        if self.output is not None:
            self.output.write_text(evaluation.metrics.model_dump_json(indent=1) + "\n", encoding="utf-8")
            print(f"Wrote {self.output}")


class Report(BaseModel):
    """Test a run again and write its report, one HTML file."""

    run: CliPositionalArg[str] = Field(description="The folder of the run, or `last` for the newest")
    runs: Path = Field(default=Path("runs"), description="The folder in which the runs are")

    def cli_cmd(self) -> None:
        """Runs the command."""
        from training.evaluation.evaluate import evaluate_run
        from training.evaluation.summary import summary
        from training.pictures.report import write_report
        from training.runs.run_folder import find_run

        run = find_run(self.run, runs=self.runs, trained=True)
        print(summary(evaluate_run(run).test))
        print(f"Wrote {write_report(run)}")


class Export(BaseModel):
    """Publish the weights of a run as the next version of a model."""

    run: CliPositionalArg[str] = Field(description="The folder of the run, or `last` for the newest")
    checkpoint: Literal["best", "last"] = Field(
        default="best", description="The weights to publish: those of the best epoch, or the last ones"
    )
    name: str | None = Field(
        default=None, pattern=MODEL_NAME_PATTERN, description="The name of the model in the store; by default the run's"
    )
    store: Path | None = Field(default=None, description="The model store; by default the run's")
    runs: Path = Field(default=Path("runs"), description="The folder in which the runs are")
    onnx: bool | None = Field(
        default=None,
        description="Write model.onnx too, for faster engines; by default if the packages for it are installed",
    )

    def cli_cmd(self) -> None:
        """Runs the command."""
        from training.data.prepared import prepare_data
        from training.evaluation.evaluate import evaluate
        from training.export.publish import publish_run, run_predictor
        from training.runs.run_folder import find_run

        run = find_run(self.run, runs=self.runs, trained=True)
        data = prepare_data(run.config(), run.path)
        predictor = run_predictor(run, checkpoint=self.checkpoint)
        evaluation, _ = evaluate(predictor, data, checkpoint=self.checkpoint)
        folder = publish_run(
            run,
            data,
            metrics=evaluation.manifest_metrics(),
            temperature=evaluation.calibration.temperature,
            checkpoint=self.checkpoint,
            name=self.name,
            store_root=self.store,
            onnx=self.onnx,
        )
        print(f"Published {folder}")
