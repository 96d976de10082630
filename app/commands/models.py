"""The commands `models`, `pin`, `unpin` and `prune`: they list the published models and choose versions."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field
from pydantic_settings import CliImplicitFlag, CliPositionalArg

from app.errors import ArtifactError
from app.settings import StoreSettings
from app.store.manifest import Manifest
from app.store.model_store import ModelStore
from app.store.signatures import TrustedKeys

if TYPE_CHECKING:
    from rich.table import Table


class PublishedVersion(NamedTuple):
    """A version in the store.

    Attributes:
        name: the model's name.
        version: the version's number.
        is_pinned: whether it was made current until it is unpinned.
        manifest: what it says about itself, or the error that kept it from being read.
    """

    name: str
    version: int
    is_pinned: bool
    manifest: Manifest | ArtifactError

    def to_json(self) -> dict[str, Any]:
        """Returns what programs want to know of it."""
        described: dict[str, Any] = {"name": self.name, "version": self.version, "pinned": self.is_pinned}
        if isinstance(self.manifest, ArtifactError):
            return described | {"error": self.manifest.detail}
        return described | {
            "created_at": self.manifest.created_at.isoformat(),
            "architecture": self.manifest.architecture.name,
            "class_count": len(self.manifest.class_names),
            "metrics": self.manifest.metrics,
            "size_bytes": _size_bytes(self.manifest),
        }


def print_models(store_root: Path, *, as_json: bool) -> None:
    """Prints every published version, the highest of each model first. A damaged one is told with what is wrong.

    Args:
        store_root: the folder of the model store.
        as_json: whether to print a line of JSON for each version instead of a table.
    """
    from rich.console import Console  # here, so that no other command waits for it

    versions = list(_published_versions(ModelStore(store_root)))
    if as_json:
        for version in versions:
            print(json.dumps(version.to_json()))
    elif versions:
        Console().print(_table(versions))
    else:
        Console().print(f"There are no models in {store_root}.")


def _published_versions(store: ModelStore) -> Iterator[PublishedVersion]:
    for name in store.names():
        pinned = _pinned(store, name)
        for version in reversed(store.versions(name)):
            manifest: Manifest | ArtifactError
            try:
                manifest = Manifest.read(store.resolve(name, version))
            except ArtifactError as error:
                manifest = error
            yield PublishedVersion(name, version, version == pinned, manifest)


def _pinned(store: ModelStore, name: str) -> int | None:
    try:
        return store.pinned(name)
    except ArtifactError as error:
        print(error.detail, file=sys.stderr)
        return None


def _table(versions: Iterable[PublishedVersion]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("Model", "Version", "Published", "Architecture", "Classes", "Metrics", "Megabytes")
    for name, version, is_pinned, manifest in versions:
        shown = f"{version} (pinned)" if is_pinned else str(version)
        if isinstance(manifest, ArtifactError):
            table.add_row(name, shown, Text(manifest.detail, "red"))
            continue
        table.add_row(
            name,
            shown,
            f"{manifest.created_at:%Y-%m-%d %H:%M}",
            manifest.architecture.name,
            str(len(manifest.class_names)),
            "\n".join(f"{metric} {value:.4g}" for metric, value in manifest.metrics.items()),
            f"{_size_bytes(manifest) / 1e6:.1f}",
        )
    return table


def _size_bytes(manifest: Manifest) -> int:
    return sum(file.size_bytes for file in manifest.files.values())


class Models(StoreSettings, cli_shortcuts={"json-lines": "json"}):
    """List the published models."""

    json_lines: CliImplicitFlag[bool] = Field(
        default=False, description="Print one line of JSON for each version instead of a table"
    )

    def cli_cmd(self) -> None:
        """Runs the command."""
        print_models(self.model_store, as_json=self.json_lines)


class Pin(StoreSettings):
    """Make one version of a model current until it is unpinned. Running services switch to it."""

    name: CliPositionalArg[str] = Field(description="Name of the model")
    version: CliPositionalArg[int] = Field(ge=1, description="Version to make current")

    def cli_cmd(self) -> None:
        """Runs the command."""
        ModelStore(self.model_store).pin(self.name, self.version)
        print(f"Model {self.name} is pinned to version {self.version}.")


class Unpin(StoreSettings):
    """Make the highest version of a model current again. Running services switch to it."""

    name: CliPositionalArg[str] = Field(description="Name of the model")

    def cli_cmd(self) -> None:
        """Runs the command."""
        store = ModelStore(self.model_store)
        store.unpin(self.name)
        print(f"Model {self.name} is not pinned: version {store.resolve(self.name).name} is current.")


class Prune(StoreSettings):
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
