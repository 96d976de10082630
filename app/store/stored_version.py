"""What the store has for a reference: which version should serve, and whether its files are all there.

reference -> the versions that may serve, best first -> the first that neither serves already nor failed before
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.errors import ArtifactError
from app.store.manifest import Manifest
from app.store.model_store import ModelStore, is_file_reference, split_reference

Fingerprint = tuple[tuple[str, int, int], ...]
"""Name, size in bytes and time of change in ns of each file: cheap to take, and another one when a file changes."""


@dataclass(frozen=True)
class StoredVersion:
    """One version of a model as it lies on the disk.

    Attributes:
        reference: `NAME/VERSION`, or the path of a TorchScript file.
        path: its folder, or that file.
        fingerprint: of its files.
    """

    reference: str
    path: Path
    fingerprint: Fingerprint

    @property
    def label(self) -> str:
        """The version's number, or the file's name."""
        return self.path.name

    def is_complete(self) -> bool:
        """Whether every file that its manifest lists has its size: a copy that is under way has not."""
        if is_file_reference(self.reference):
            return True
        try:
            files = Manifest.read(self.path).files
            return all((self.path / name).stat().st_size == entry.size_bytes for name, entry in files.items())
        except (ArtifactError, OSError, ValueError):  # ValueError: a name that no file can have
            return False

    def size_bytes(self) -> int:
        """Returns how large its files are."""
        return sum(size for _, size, _ in self.fingerprint)


def follows_store(reference: str) -> bool:
    """Returns whether a reference means whatever version is current, so that it can change while it serves."""
    return not is_file_reference(reference) and split_reference(reference)[1] is None


def version_to_serve(
    reference: str, store: ModelStore, *, served: StoredVersion | None, rejected: Mapping[str, Fingerprint]
) -> tuple[StoredVersion | None, str | None]:
    """Returns what should be loaded for a reference, None if nothing better than what serves is there.

    Args:
        reference: `NAME`, `NAME/VERSION`, or the path of a TorchScript file.
        store: the model store.
        served: what serves now.
        rejected: the fingerprints of versions that failed, by reference; as long as they stay, they are passed over.

    Returns:
        that stored_version; and the reference of the best one that was passed over, if any was.

    Raises:
        UnknownModelError: there is no such model, version or file.
        ArtifactError: the reference or the model's pin is not well formed.
        OSError: the disk cannot be read.
    """
    best_rejected = None
    for stored_version in _stored_versions(reference, store):
        if stored_version == served:
            break
        if rejected.get(stored_version.reference) != stored_version.fingerprint:
            return stored_version, best_rejected
        best_rejected = best_rejected or stored_version.reference
        if (
            served and served.reference == stored_version.reference
        ):  # changed in place, for the worse: memory has the better
            break
    return None, best_rejected


def _stored_versions(reference: str, store: ModelStore) -> Iterator[StoredVersion]:
    """Yields what may serve for a reference, best first; files are looked at only when their turn comes."""
    if is_file_reference(reference):
        path = Path(reference)
        yield StoredVersion(reference, path, _fingerprint(path))
        return
    name, version = split_reference(reference)
    if version is not None:
        store.resolve(name, version)
    for number in store.preferred_versions(name) if version is None else [version]:
        folder = store.root / name / str(number)
        yield StoredVersion(f"{name}/{number}", folder, _fingerprint(folder))


def _fingerprint(path: Path) -> Fingerprint:
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        entries = [(file.name, file.stat()) for file in files]
    except OSError:  # gone meanwhile, or not readable: loading tells, and other versions may be better off
        return ()
    return tuple((name, entry.st_size, entry.st_mtime_ns) for name, entry in entries)
