"""The model store, `<root>/<name>/<version>/`: listed, resolved, verified, pruned (`manifest.publish` fills it).

name[, version] -> resolve: the folder of the highest version, or of the one asked for -> verify_files: sha256 of each
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from app.errors import ArtifactError, UnknownModelError
from app.manifest import (
    MANIFEST_FILE,
    MODEL_NAME_PATTERN,
    TEMPORARY_PREFIX,
    Manifest,
    hash_file,
    locked,
    published_versions,
)
from app.signatures import TrustedKeys

_NAME: Final = re.compile(MODEL_NAME_PATTERN)


class ModelStore:
    """A folder of published models.

    Args:
        root: the folder; need not exist yet.
        trusted_keys: one of them must have signed what is loaded; None if anything may be.
    """

    def __init__(self, root: Path, trusted_keys: TrustedKeys | None = None) -> None:
        self.root = root
        self.trusted_keys = trusted_keys

    def names(self) -> list[str]:
        """Returns the names that have at least one published version, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(
            folder.name
            for folder in self.root.iterdir()
            if folder.is_dir() and _NAME.fullmatch(folder.name) and self.versions(folder.name)
        )

    def versions(self, name: str) -> list[int]:
        """Returns the published versions of a model, ascending; empty if there are none."""
        return published_versions(self.root / name) if _NAME.fullmatch(name) else []

    def resolve(self, name: str, version: int | None = None) -> Path:
        """Returns the folder of a version, the highest if None.

        Raises:
            UnknownModelError: there is no such model or version; the sentence names those that there are.
        """
        versions = self.versions(name)
        if not versions:
            known = ", ".join(self.names()) or "none"
            raise UnknownModelError(f"No model {name!r} in the store {self.root}. Published there: {known}.")
        if version is None:
            version = versions[-1]
        if version not in versions:
            known = ", ".join(map(str, versions))
            raise UnknownModelError(f"Model {name!r} has no version {version}. Published versions: {known}.")
        return self.root / name / str(version)

    def read_manifest(self, folder: Path) -> Manifest:
        """Reads the manifest of a version, after its signature if keys are trusted: not a byte is parsed before.

        Raises:
            SignatureError: it is not signed by a trusted key.
            ArtifactError: it is missing or invalid.
        """
        if self.trusted_keys is None:
            return Manifest.read(folder)
        return Manifest.from_json(self.trusted_keys.read_signed(folder), origin=str(folder / MANIFEST_FILE))

    def prune(self, name: str, *, keep: int) -> list[int]:
        """Deletes all but the `keep` highest versions of a model.

        Returns:
            the versions deleted.

        Raises:
            ValueError: `keep` is less than 1.
        """
        if keep < 1:
            raise ValueError("keep must be at least 1.")
        if not self.versions(name):
            return []
        with locked(self.root / name):
            doomed = self.versions(name)[:-keep]
            for version in doomed:
                # Renamed first: a reader never sees half a version.
                hidden = self.root / name / f"{TEMPORARY_PREFIX}{version}-deleted"
                (self.root / name / str(version)).rename(hidden)
                shutil.rmtree(hidden)
        return doomed


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Compares each file that the manifest lists with its size and sha256.

    Raises:
        ArtifactError: a file is missing, or is not the one that was published; or the manifest lists none.
    """
    if not manifest.files:
        raise ArtifactError(f"{folder / MANIFEST_FILE} lists no files, so that nothing can be verified.")
    for file_name, expected in manifest.files.items():
        path = folder / file_name
        if file_name in {"", ".."} or "\0" in file_name or Path(file_name).name != file_name:
            raise ArtifactError(f"{folder / MANIFEST_FILE} lists {file_name!r}, which is not a plain file name.")
        try:
            found = hash_file(path)
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
        if found != expected:
            raise ArtifactError(
                f"{path} is not the file that was published: it has {found.size_bytes} bytes and sha256 "
                f"{found.sha256[:12]}…, the manifest says {expected.size_bytes} and {expected.sha256[:12]}…."
            )
