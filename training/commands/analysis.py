"""The commands that look at what training made: `evaluate`, `report`, `export`.

python -m training COMMAND -> parsed by pydantic-settings -> cli_cmd -> the module that does it
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field
from pydantic_settings import CliPositionalArg

from app.store.manifest import MODEL_NAME_PATTERN


class Evaluate(BaseModel):
    """Measure a published model on a folder with a folder per class."""

    model: str = Field(description="NAME, for the version that serves, or NAME/VERSION")
    data: Path = Field(description="The folder; its class folders are matched to the model's classes by name")
    store: Path = Field(default=Path("model_store"), description="The model store")
    output: Path | None = Field(default=None, description="Also write every figure to this JSON file")

    def cli_cmd(self) -> None:
        """Runs the command."""
        from training.evaluation.published import evaluate_published
        from training.evaluation.summary import summary

        evaluation = evaluate_published(self.model, self.data, store_root=self.store)
        for path, reason in evaluation.unreadable:
            print(f"Left out: {path}: {reason}")
        manifest = evaluation.manifest
        print(f"{manifest.name}/{manifest.version} on {self.data}")
        print(summary(evaluation.metrics))
        if self.output is not None:
            self.output.write_text(evaluation.metrics.model_dump_json(indent=1) + "\n", encoding="utf-8")
            print(f"Wrote {self.output}")


class Report(BaseModel):
    """Evaluate a run again and write its report, one HTML file."""

    run: CliPositionalArg[str] = Field(description="The run's folder, or `last`")
    runs: Path = Field(default=Path("runs"), description="Where runs are")

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
    """Publish a run's weights as the next version of a model, verified."""

    run: CliPositionalArg[str] = Field(description="The run's folder, or `last`")
    checkpoint: Literal["best", "last"] = Field(default="best", description="Which weights")
    name: str | None = Field(
        default=None, pattern=MODEL_NAME_PATTERN, description="What the model is called; by default as the run"
    )
    store: Path | None = Field(default=None, description="The model store; by default the run's")
    runs: Path = Field(default=Path("runs"), description="Where runs are")
    onnx: bool | None = Field(default=None, description="Write the ONNX twin; by default where onnx is installed")

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
