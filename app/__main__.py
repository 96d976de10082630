"""The command line, `image-predictor COMMAND` or `python -m app COMMAND`: parses the options and runs the command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, NoReturn

from pydantic import Field
from pydantic_settings import BaseSettings, CliImplicitFlag, CliPositionalArg, SettingsError

from app.commands.keys import NewKey, NewSigningKey, Sign
from app.commands.models import Models, Pin, Prune, Unpin
from app.commands.options import completion_script, nearest, run_command
from app.errors import PredictorError
from app.settings import ModelSettings, Settings
from app.system.environment import tell_ignored_variables
from app.telemetry.logs import configure_logging

_USAGE = """\
usage: image-predictor COMMAND [options]

commands:
  serve            serve models over HTTP
  predict          classify files and folders without a server
  bench            measure how fast a model is on this machine, and what limits it
  models           list the published models
  pin              make one version of a model current until it is unpinned
  unpin            make the highest version of a model current again
  prune            delete old versions of a model
  sign             sign a published model
  new-signing-key  make a pair of keys for signing models
  new-key          make an API key
  completion       print what makes a shell complete commands and options

`image-predictor COMMAND --help` shows the options of a command and the environment variables that set them.
`image-predictor --version` shows the version.
"""


class Serve(Settings):
    """Serve models over HTTP. A client sends an image to /predict and gets class probabilities."""

    def cli_cmd(self) -> None:
        """Runs the command."""
        from app.server.first_process import hear_sigterm

        hear_sigterm()
        from app.server.supervisor import serve

        configure_logging(self.log_level, self.log_format)
        tell_ignored_variables()
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
        print(completion_script(_COMMANDS, self.shell))


_COMMANDS: dict[str, type[BaseSettings]] = {
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


def main() -> None:
    """Runs the command line."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(_USAGE)
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"image-predictor {version('image-predictor')}")
        sys.exit(0)
    command = _COMMANDS.get(arguments[0])
    if command is None:
        _fail(
            f"There is no command {arguments[0]}.{nearest(arguments[0], _COMMANDS)} There are: {', '.join(_COMMANDS)}."
        )
    try:
        run_command(arguments[0], command, arguments[1:])
    except (SettingsError, PredictorError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
