"""The commands `models`, `pin`, `unpin` and `prune`: they list the published models and choose versions."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg
from rich.console import Console
from rich.table import Table

from app.errors import ArtifactError
from app.settings import StoreSettings
from app.store.manifest import Manifest
from app.store.model_store import ModelStore
from app.store.signatures import TrustedKeys


def print_models(store_root: Path) -> None:
    """Prints a table of every published version, the highest first. The row of a damaged one says what is wrong.

    Args:
        store_root: the folder of the model store.
    """
    store = ModelStore(store_root)
    table = Table("Model", "Version", "Published", "Architecture", "Classes", "Metrics", "Megabytes")
    for name in store.names():
        pinned = _pinned(store, name)
        for version in reversed(store.versions(name)):
            shown = f"{version} (pinned)" if version == pinned else str(version)
            try:
                manifest = Manifest.read(store.resolve(name, version))
            except ArtifactError as error:
                table.add_row(name, shown, f"[red]{error.detail}[/red]")
                continue
            table.add_row(
                name,
                shown,
                f"{manifest.created_at:%Y-%m-%d %H:%M}",
                manifest.architecture.name,
                str(len(manifest.class_names)),
                "\n".join(f"{metric} {value:.4g}" for metric, value in manifest.metrics.items()),
                f"{sum(file.size_bytes for file in manifest.files.values()) / 1e6:.1f}",
            )
    if table.row_count:
        Console().print(table)
    else:
        Console().print(f"There are no models in {store_root}.")


def _pinned(store: ModelStore, name: str) -> int | None:
    try:
        return store.pinned(name)
    except ArtifactError as error:
        Console().print(f"[red]{error.detail}[/red]")
        return None


class Models(StoreSettings, cli_prog_name="image-predictor models"):
    """List the published models."""

    def cli_cmd(self) -> None:
        """Runs the command."""
        print_models(self.model_store)


class Pin(StoreSettings, cli_prog_name="image-predictor pin"):
    """Make one version of a model current until it is unpinned. Running services switch to it."""

    name: CliPositionalArg[str] = Field(description="Name of the model")
    version: CliPositionalArg[int] = Field(ge=1, description="Version to make current")

    def cli_cmd(self) -> None:
        """Runs the command."""
        ModelStore(self.model_store).pin(self.name, self.version)
        print(f"Model {self.name} is pinned to version {self.version}.")


class Unpin(StoreSettings, cli_prog_name="image-predictor unpin"):
    """Make the highest version of a model current again. Running services switch to it."""

    name: CliPositionalArg[str] = Field(description="Name of the model")

    def cli_cmd(self) -> None:
        """Runs the command."""
        store = ModelStore(self.model_store)
        store.unpin(self.name)
        print(f"Model {self.name} is not pinned: version {store.resolve(self.name).name} is current.")


class Prune(StoreSettings, cli_prog_name="image-predictor prune"):
    """Delete old versions of a model. The newest intact versions and the pinned version are kept."""

    name: CliPositionalArg[str] = Field(description="Name of the model")
    keep: int = Field(ge=1, description="Number of versions to keep. Damaged versions do not count")
    trusted_keys: Path | None = Field(
        default=None,
        description="PEM file of public keys, the same that the services have. "
        "With it, only versions that one of the keys has signed count",
    )

    def cli_cmd(self) -> None:
        """Runs the command."""
        store = ModelStore(self.model_store, TrustedKeys.configured(self.trusted_keys))
        store.resolve(self.name)
        pruned = store.prune(self.name, keep=self.keep)
        print(f"Deleted versions: {', '.join(map(str, pruned.deleted)) or 'none'}.")
        for version, reason in pruned.damaged.items():
            print(f"Version {version} does not count, and is left as it is: {reason}", file=sys.stderr)
