"""Finds the version in the store that should serve for a reference, and tells whether all its files are there.

reference -> the versions that may serve, best first -> the first one that neither serves already nor failed before
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.errors import ArtifactError
from app.store.labels import label_file
from app.store.manifest import MANIFEST_FILE, MODEL_FILE
from app.store.model_store import ModelStore
from app.store.references import is_file_reference, split_reference

Fingerprint = tuple[tuple[str, int, int, int], ...]
"""The name, the size in bytes, and the times in ns of the last change of each file: of its content, and of anything.

It is cheap to take, and it differs when a file has changed. The time of the content can be set by anybody, as `cp -p`
and `rsync -t` do. The other one cannot.
"""


@dataclass(frozen=True)
class StoredVersion:
    """One version of a model as it lies on the disk.

    Attributes:
        reference: `NAME/VERSION`, or the path of a TorchScript file.
        path: the folder of the version, or the TorchScript file.
        fingerprint: the fingerprint of the version's files. Two stored versions are equal only if it is equal too.
    """

    reference: str
    path: Path
    fingerprint: Fingerprint

    @property
    def label(self) -> str:
        """The version's number, or the file's name."""
        return self.path.name

    def is_complete(self, store: ModelStore) -> bool:
        """Returns whether every file that the manifest lists has its size. A copy that is under way is not complete.

        Args:
            store: the model store. Where it trusts keys, a version that none of them has signed is not complete.
        """
        if is_file_reference(self.reference):
            return True
        try:
            files = store.read_manifest(self.path).files
            return all((self.path / name).stat().st_size == entry.size_bytes for name, entry in files.items())
        except (ArtifactError, OSError):
            return False

    def size_bytes(self) -> int:
        """Returns the size of all files of the version."""
        return sum(size for _, size, *_ in self.fingerprint)


def follows_store(reference: str) -> bool:
    """Returns whether a reference means the current version, which can become another one while it serves."""
    return not is_file_reference(reference) and split_reference(reference)[1] is None


def version_to_serve(
    reference: str, store: ModelStore, *, served: StoredVersion | None, rejected: Mapping[str, Fingerprint]
) -> tuple[StoredVersion | None, str | None]:
    """Returns the version that should be loaded for a reference.

    Args:
        reference: `NAME`, `NAME/VERSION`, or the path of a TorchScript file.
        store: the model store.
        served: the version that serves now; None if none does.
        rejected: the fingerprints of versions that failed, by reference. A version is passed over as long as it has
            the fingerprint with which it failed.

    Returns:
        the version to load, or None if there is nothing better than `served`; and the reference of the best version
        that was passed over, or None if none was.

    Raises:
        UnknownModelError: there is no such model, version or file.
        ArtifactError: the reference or the model's pin is not well formed.
        OSError: the disk cannot be read.
    """
    best_rejected = None
    for candidate in _stored_versions(reference, store):
        if candidate == served:
            break
        if rejected.get(candidate.reference) != candidate.fingerprint:
            return candidate, best_rejected
        best_rejected = best_rejected or candidate.reference
        # The version that serves was changed in place, for the worse. The better one is still in memory.
        if served and served.reference == candidate.reference:
            break
    return None, best_rejected


def _stored_versions(reference: str, store: ModelStore) -> Iterator[StoredVersion]:
    """Yields the versions that may serve for a reference, best first; each one's files are looked at in its turn."""
    if is_file_reference(reference):
        path = Path(reference)
        yield StoredVersion(reference, path, _fingerprint(path, *_beside(path)))
        return
    name, version = split_reference(reference)
    if version is not None:
        store.resolve(name, version)
    for number in store.preferred_versions(name) if version is None else [version]:
        folder = store.folder(name) / str(number)
        yield StoredVersion(f"{name}/{number}", folder, _fingerprint(folder))


def _beside(path: Path) -> list[Path]:
    manifest, labels = path.with_name(MANIFEST_FILE), label_file(path)
    if path.name == MODEL_FILE and manifest.is_file():  # a published version that lies outside a store
        return [manifest]
    return [labels] if labels else []


def _fingerprint(path: Path, *others: Path) -> Fingerprint:
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path, *others]
        entries = [(file.name, file.stat()) for file in files]
    except OSError:  # gone meanwhile, or not readable: loading will say so, and another version may do better
        return ()
    return tuple((name, entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns) for name, entry in entries)
