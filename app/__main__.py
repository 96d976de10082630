"""The command line, `image-predictor COMMAND` or `python -m app COMMAND`: parses the options and runs the command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliImplicitFlag, CliPositionalArg, SettingsError

from app.commands.keys import NewKey, NewSigningKey, Sign
from app.commands.models import Models, Pin, Prune, Unpin
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

`image-predictor COMMAND --help` shows the options of a command and the environment variables that set them.
"""


class Serve(Settings, cli_prog_name="image-predictor serve"):
    """Serve models over HTTP. A client sends an image to /predict and gets class probabilities."""

    def cli_cmd(self) -> None:
        """Runs the command."""
        from app.server.supervisor import serve

        configure_logging(self.log_level, self.log_format)
        tell_ignored_variables()
        sys.exit(serve(self))


class Predict(ModelSettings, cli_prog_name="image-predictor predict"):
    """Classify image files and all images in folders, without a server."""

    paths: CliPositionalArg[list[Path]] = Field(min_length=1, description="Image files, and folders of them")
    top_k: int = Field(default=3, ge=1, description="Number of classes to show for each image")
    json_lines: CliImplicitFlag[bool] = Field(
        default=False, alias="json", description="Print one line of JSON for each file instead of a table"
    )

    def cli_cmd(self) -> None:
        """Runs the command."""
        from app.commands.predict import predict_files

        configure_logging("critical")  # what goes wrong is printed once, as the command's own answer
        sys.exit(0 if predict_files(self, self.paths, top_k=self.top_k, as_json=self.json_lines) else 1)


class Bench(ModelSettings, cli_prog_name="image-predictor bench"):
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
}


def main() -> None:
    """Runs the command line."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(_USAGE)
        sys.exit(0 if arguments else 2)
    command = _COMMANDS.get(arguments[0])
    if command is None:
        _fail(f"There is no command {arguments[0]!r}; there are: {', '.join(_COMMANDS)}.")
    try:
        CliApp.run(command, cli_args=arguments[1:])
    except ValidationError as error:
        for problem in error.errors():
            name = ".".join(map(str, problem["loc"]))
            setting = f"--{name.replace('_', '-')} (PREDICTOR_{name.upper()}): " if name else ""
            print(setting + problem["msg"].removeprefix("Value error, "), file=sys.stderr)
        sys.exit(2)
    except (SettingsError, PredictorError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
