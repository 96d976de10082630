"""The command line, `image-predictor COMMAND` or `python -m app COMMAND`: hands over to the command.

of the service -> app.command_line; of training -> `python -m training`, which needs more packages
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Final, NoReturn

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

training:
  train            train a network on your photos, test it and publish it
  tune             search for good settings of the training
  evaluate         test a published model on labelled photos
  report           write the report of a run again
  visualize        draw what a network sees
  find-lr          find a learning rate
  export           publish the model of a run
  import           publish a model that was trained elsewhere
  import-mar       publish the model of a TorchServe archive
  import-pretrained  publish a model with pretrained weights

`image-predictor COMMAND --help` shows the options of a command and the environment variables that set them.
`image-predictor --version` shows the version.
"""
_SERVICE: Final = (
    "serve", "predict", "bench", "models", "pin", "unpin", "prune", "new-key", "sign", "new-signing-key", "completion",
)  # fmt: skip
_TRAINING: Final = (
    "train", "tune", "evaluate", "report", "visualize", "find-lr", "export", "import", "import-mar",
    "import-pretrained",
)  # fmt: skip
_EXTRAS: Final = {"cryptography": "signing", "torch": "torch"}


def main() -> None:
    """Runs the command line."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in {"-h", "--help"}:
        print(_USAGE)
        sys.exit(0 if len(sys.argv) > 1 else 2)
    if name == "--version":
        from importlib.metadata import version

        print(f"image-predictor {version('image-predictor')}")
        sys.exit(0)
    if name not in (known := (*_SERVICE, *_TRAINING)):
        from app.commands.options import nearest

        _fail(f"There is no command {name}.{nearest(name, known)} There are: {', '.join(known)}.")
    try:
        if name in _SERVICE:
            from app.command_line import run

            run(name, arguments)
        else:
            import runpy

            runpy.run_module("training", run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if find_spec(package):  # it is installed, and something else is wrong
            raise
        extra = _EXTRAS.get(package, "training") if name in _SERVICE else "training"
        _fail(f"{name} needs {package}, which is not installed: pip install 'image-predictor[{extra}]'.")
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
