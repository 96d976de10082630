"""The changes that admin routes asked for at run time, shared by the workers of a service through one file.

admin route in one worker -> <runtime folder>/changes.json, replaced atomically -> read again and again by the others

A worker that starts later reads the file too. It does not hold versions and pins: those are in the store.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from app.store.publishing import locked, write_atomically
from app.store.references import split_alias

CHANGES_FILE = "changes.json"


class RequestedChanges(BaseModel):
    """What was asked for since the service started.

    Attributes:
        loaded: the references of the models that are served beside those of the settings, in the order of loading.
        unloaded: the references of the settings that are not served any more, by the name of their model.
        looks: how often a look for a new version was asked for, by the name of the model.
        count: how many changes these are.
    """

    model_config = ConfigDict(frozen=True)

    loaded: tuple[str, ...] = ()
    unloaded: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    looks: dict[str, int] = Field(default_factory=dict)
    count: int = 0

    def references(self, configured: tuple[str, ...]) -> list[str]:
        """Returns the references that should be served.

        Args:
            configured: the references of the settings. Those that were unloaded are left out.
        """
        unloaded = {reference for references in self.unloaded.values() for reference in references}
        return [reference for reference in configured if reference not in unloaded] + list(self.loaded)

    def with_loaded(self, name: str, reference: str) -> RequestedChanges:
        """Returns the changes after a model was loaded: by its references in the settings, or else by `reference`."""
        unloaded = {other: references for other, references in self.unloaded.items() if other != name}
        is_known = name in self.unloaded or reference in self.loaded
        return self.model_copy(
            update={"unloaded": unloaded, "loaded": self.loaded if is_known else (*self.loaded, reference)}
        )

    def without(self, name: str, configured: tuple[str, ...] = ()) -> RequestedChanges:
        """Returns the changes after a model was unloaded.

        Args:
            name: the name of the model.
            configured: the references of the settings that served the model.
        """
        unloaded = {**self.unloaded, name: configured} if configured else self.unloaded
        loaded = tuple(other for other in self.loaded if (split_alias(other)[0] or other) != name)
        return self.model_copy(update={"unloaded": unloaded, "loaded": loaded})

    def with_look(self, name: str) -> RequestedChanges:
        """Returns the changes after a look for a new version of a model was asked for."""
        return self.model_copy(update={"looks": {**self.looks, name: self.looks.get(name, 0) + 1}})


class SharedChanges:
    """Reads the requested changes, and adds to them.

    Args:
        runtime_folder: the folder that the workers of a service share. None keeps the changes in this process.
    """

    def __init__(self, runtime_folder: Path | None) -> None:
        self._path = runtime_folder / CHANGES_FILE if runtime_folder else None
        self._changes = RequestedChanges()

    @property
    def is_shared(self) -> bool:
        """Whether other processes may add changes."""
        return self._path is not None

    def read(self) -> RequestedChanges:
        """Returns the changes that have been asked for until now."""
        if self._path is None:
            return self._changes
        try:
            return RequestedChanges.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return RequestedChanges()

    def apply(self, change: Callable[[RequestedChanges], RequestedChanges]) -> RequestedChanges:
        """Applies one more change, while no other worker can.

        Args:
            change: takes the changes until now, and returns them with the new one.

        Returns:
            the changes with the new one.
        """
        if self._path is None:
            self._changes = _counted(change(self._changes))
            return self._changes
        with locked(self._path.parent):
            changes = _counted(change(self.read()))
            write_atomically(self._path, changes.model_dump_json().encode())
        return changes


def _counted(changes: RequestedChanges) -> RequestedChanges:
    return changes.model_copy(update={"count": changes.count + 1})
