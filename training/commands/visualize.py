"""The command `visualize`: pictures of what a network has learned, and of what it makes of an image.

command line -> cli_cmd -> training/pictures/ -> PNG files in <run>/visualize/
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field
from pydantic_settings import CliApp, CliPositionalArg, CliSubCommand


class _OfRun(BaseModel):
    """A command that draws what belongs to a run."""

    run: CliPositionalArg[str] = Field(description="The folder of the run, or `last` for the newest")
    runs: Path = Field(default=Path("runs"), description="The folder in which the runs are")
    checkpoint: Literal["best", "last"] = Field(
        default="best", description="The weights to look at: those of the best epoch, or the last ones"
    )
    output: Path | None = Field(
        default=None, description="The folder for the PNG files; by default `visualize` in the run's folder"
    )


class _OfImage(_OfRun):
    """A command that draws what a network makes of an image."""

    image: CliPositionalArg[Path] = Field(description="An image file")


class Filters(_OfRun):
    """Draw the filters of the first convolution."""

    def cli_cmd(self) -> None:
        """Runs the command."""
        from training.export.publish import run_predictor
        from training.pictures.drawing import save_png
        from training.pictures.visualize import filter_figure
        from training.runs.run_folder import find_run

        run = find_run(self.run, runs=self.runs, trained=True)
        path = (self.output or run.path / "visualize") / "filters.png"
        save_png(filter_figure(run_predictor(run, checkpoint=self.checkpoint)), path)
        print(f"Wrote {path}")


class Features(_OfImage):
    """Draw what the first convolution, activation and pooling make of an image."""

    def cli_cmd(self) -> None:
        """Runs the command."""
        from training.export.publish import run_predictor
        from training.pictures.drawing import save_png
        from training.pictures.visualize import map_figures, read_image
        from training.runs.run_folder import find_run

        run = find_run(self.run, runs=self.runs, trained=True)
        predictor = run_predictor(run, checkpoint=self.checkpoint)
        folder = self.output or run.path / "visualize"
        for number, (title, figure) in enumerate(map_figures(predictor, read_image(self.image, predictor)), 1):
            path = folder / f"features-{number}-{title.split(' ')[0].lower()}.png"
            save_png(figure, path)
            print(f"{title}\nWrote {path}")


class Layers(_OfRun):
    """Print the output shape and the number of parameters of each layer."""

    def cli_cmd(self) -> None:
        """Runs the command."""
        import torch

        from training.export.publish import run_predictor
        from training.pictures.layers import layer_table, run_layers
        from training.runs.run_folder import find_run

        predictor = run_predictor(find_run(self.run, runs=self.runs, trained=True), checkpoint=self.checkpoint)
        size = predictor.image_size
        layer_runs = run_layers(predictor, torch.zeros(1, 3, size, size, dtype=torch.uint8))
        print(layer_table(layer_runs, sum(parameter.numel() for parameter in predictor.model.parameters())))


class GradCam(_OfImage):
    """Draw what part of an image speaks for the most probable class (Grad-CAM)."""

    def cli_cmd(self) -> None:
        """Runs the command."""
        from training.export.publish import run_predictor
        from training.pictures.drawing import save_png
        from training.pictures.visualize import cam_figure, read_image
        from training.runs.run_folder import find_run

        run = find_run(self.run, runs=self.runs, trained=True)
        predictor = run_predictor(run, checkpoint=self.checkpoint)
        path = (self.output or run.path / "visualize") / f"grad-cam-{self.image.stem}.png"
        save_png(cam_figure(predictor, read_image(self.image, predictor).unsqueeze(0)), path)
        print(f"Wrote {path}")


class Augmentations(_OfRun):
    """Draw a few training images (left) and how the training varies them."""

    images: int = Field(default=4, ge=1, le=32, description="How many images are drawn, of different classes first")
    versions: int = Field(default=8, ge=1, le=32, description="How many versions of each image are drawn")
    seed: int = Field(default=0, ge=0, description="The seed of the variation")

    def cli_cmd(self) -> None:
        """Runs the command."""
        from training.pictures.drawing import save_png
        from training.pictures.visualize import run_augmentation_figure
        from training.runs.run_folder import find_run

        run = find_run(self.run, runs=self.runs, trained=True)
        path = (self.output or run.path / "visualize") / "augmentations.png"
        save_png(run_augmentation_figure(run, images=self.images, versions=self.versions, seed=self.seed), path)
        print(f"Wrote {path}")


class Visualize(BaseModel):
    """Draw what the network of a run has learned and what it does."""

    filters: CliSubCommand[Filters]
    features: CliSubCommand[Features]
    layers: CliSubCommand[Layers]
    grad_cam: CliSubCommand[GradCam]
    augmentations: CliSubCommand[Augmentations]

    def cli_cmd(self) -> None:
        """Runs the command that was chosen."""
        CliApp.run_subcommand(self)
