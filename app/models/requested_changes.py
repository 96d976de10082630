"""What was asked for at run time: loaded, unloaded, looked at. Shared by the workers of a service through one file.

admin route in one worker -> <runtime folder>/changes.json, replaced atomically -> polled by every other worker

A worker that starts later reads it too. Versions and pins are not in it: of those the store tells.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from app.store.publishing import locked, write_atomically

CHANGES_FILE = "changes.json"


class RequestedChanges(BaseModel):
    """What was asked for since the service started.

    Attributes:
        loaded: models of the store that are served beside those of the settings, in the order of loading.
        unloaded: references of the settings that are not served, by the name of their model.
        looks: how often a look at a model's files was asked for, by its name.
    """

    model_config = ConfigDict(frozen=True)

    loaded: tuple[str, ...] = ()
    unloaded: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    looks: dict[str, int] = Field(default_factory=dict)

    def references(self, configured: tuple[str, ...]) -> list[str]:
        """Returns what should be served: what is left of the settings, then what was loaded."""
        unloaded = {reference for references in self.unloaded.values() for reference in references}
        return [reference for reference in configured if reference not in unloaded] + list(self.loaded)

    def with_loaded(self, name: str) -> RequestedChanges:
        """Returns the changes after a model was loaded: as the settings have it if it is theirs, else by its name."""
        unloaded = {other: references for other, references in self.unloaded.items() if other != name}
        is_known = name in self.unloaded or name in self.loaded
        return self.model_copy(
            update={"unloaded": unloaded, "loaded": self.loaded if is_known else (*self.loaded, name)}
        )

    def without(self, name: str, configured: tuple[str, ...] = ()) -> RequestedChanges:
        """Returns the changes after a model was unloaded.

        Args:
            name: the model's.
            configured: those references of the settings that serve it.
        """
        unloaded = {**self.unloaded, name: configured} if configured else self.unloaded
        loaded = tuple(other for other in self.loaded if other != name)
        return self.model_copy(update={"unloaded": unloaded, "loaded": loaded})

    def with_look(self, name: str) -> RequestedChanges:
        """Returns the changes after a look at a model was asked for."""
        return self.model_copy(update={"looks": {**self.looks, name: self.looks.get(name, 0) + 1}})


class SharedChanges:
    """Reads what was asked for, and adds to it.

    Args:
        runtime_folder: that the workers of a service share; without one, the changes are this process's own.
    """

    def __init__(self, runtime_folder: Path | None) -> None:
        self._path = runtime_folder / CHANGES_FILE if runtime_folder else None
        self._changes = RequestedChanges()

    @property
    def is_shared(self) -> bool:
        """Whether other processes may add to it."""
        return self._path is not None

    def read(self) -> RequestedChanges:
        """Returns what has been asked for until now."""
        if self._path is None:
            return self._changes
        try:
            return RequestedChanges.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return RequestedChanges()

    def apply(self, change: Callable[[RequestedChanges], RequestedChanges]) -> RequestedChanges:
        """Applies one more change; no other worker can do so at the same time.

        Returns:
            the changes afterwards.
        """
        if self._path is None:
            self._changes = change(self._changes)
            return self._changes
        with locked(self._path.parent):
            changes = change(self.read())
            write_atomically(self._path, changes.model_dump_json().encode())
        return changes
