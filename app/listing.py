"""The model store, as a table for people."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from app.errors import ArtifactError
from app.manifest import Manifest
from app.store import ModelStore


def print_models(store_root: Path) -> None:
    """Prints every published version, newest first, and which one is pinned; damage is told in its row."""
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
