"""The commands of the service with their options, and which command an argument names.

name -> its settings, from options and the environment -> the command runs
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, CliImplicitFlag, CliPositionalArg, SettingsError

from app.commands.keys import NewKey, NewSigningKey, Sign
from app.commands.models import Models, Pin, Prune, Unpin
from app.commands.options import completion_script, run_command
from app.errors import PredictorError
from app.settings import ModelSettings, Settings
from app.settings.platforms import tell_unused_storage
from app.system.environment import tell_ignored_variables
from app.telemetry.logs import configure_logging


class Serve(Settings):
    """Serve models over HTTP. A client sends an image to /predict and gets class probabilities."""

    def cli_cmd(self) -> None:
        """Runs the command."""
        from app.server.first_process import hear_sigterm

        hear_sigterm()
        from app.server.supervisor import serve

        configure_logging(self.log_level, self.log_format)
        tell_ignored_variables()
        tell_unused_storage(os.environ)
        sys.exit(serve(self))


class Predict(ModelSettings, cli_shortcuts={"json-lines": "json"}):
    """Classify image files and all images in folders, without a server."""

    paths: CliPositionalArg[list[Path]] = Field(min_length=1, description="Image files, and folders of them")
    top_k: int = Field(default=3, ge=1, description="Number of classes to show for each image")
    json_lines: CliImplicitFlag[bool] = Field(
        default=False, description="Print one line of JSON for each file instead of a table"
    )

    def cli_cmd(self) -> None:
        """Runs the command."""
        from app.commands.predict import predict_files

        configure_logging("critical")  # what goes wrong is printed once, as the command's own answer
        sys.exit(0 if predict_files(self, self.paths, top_k=self.top_k, as_json=self.json_lines) else 1)


class Bench(ModelSettings):
    """Measure how fast a model is on this machine, from decoding to HTTP, and say what limits it."""

    paths: CliPositionalArg[list[Path]] = Field(
        default=[],
        description="Image files, and folders of them. The default: the model's golden images, or a made-up photo",
    )
    seconds: float = Field(default=1.0, gt=0, le=600, description="Duration of each measurement, in seconds")

    def cli_cmd(self) -> None:
        """Runs the command."""
        from app.commands.bench.measure import bench

        configure_logging("critical")  # what goes wrong is printed once, as the command's own answer
        bench(self, self.paths, seconds=self.seconds)


class Completion(BaseSettings):
    """Print the script that makes a shell complete commands and options."""

    shell: CliPositionalArg[Literal["bash", "zsh", "fish", "tcsh"]] = Field(description="Shell to write it for")

    def cli_cmd(self) -> None:
        """Runs the command."""
        print(completion_script(COMMANDS, self.shell))


COMMANDS: Final[dict[str, type[BaseSettings]]] = {
    "serve": Serve,
    "predict": Predict,
    "bench": Bench,
    "models": Models,
    "pin": Pin,
    "unpin": Unpin,
    "prune": Prune,
    "new-key": NewKey,
    "sign": Sign,
    "new-signing-key": NewSigningKey,
    "completion": Completion,
}
"""Every command of the service by its name."""


def run(name: str, arguments: list[str]) -> None:
    """Runs a command of the service. An error that a user can mend ends the process with a sentence and status 2.

    Args:
        name: the command's name.
        arguments: what follows the name on the command line.
    """
    try:
        run_command(name, COMMANDS[name], arguments)
    except (SettingsError, PredictorError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
