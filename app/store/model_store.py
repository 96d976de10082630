"""The model store, a folder `<root>/<name>/<version>/`: lists, resolves, pins, verifies and prunes versions.

A model that the store does not have may come from an installed package, which has it in a folder of the same form.

reference -> split_reference -> resolve: the folder of that version, or of the current one -> verify_files: each sha256
name -> prune: the highest versions that verify are kept -> the versions below them are deleted

The current version is the one that `<root>/<name>/pinned` names. Without that file it is the highest.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.errors import ArtifactError, UnknownModelError
from app.store.manifest import MANIFEST_FILE, MODEL_NAME_PATTERN, Manifest, version_number
from app.store.places import DEFAULT_MODEL, DEFAULT_MODEL_PACKAGE, packaged_stores
from app.store.publishing import TEMPORARY_PREFIX, hash_file, locked, published_versions, write_atomically
from app.store.regular_files import read_small
from app.store.signatures import TrustedKeys

PIN_FILE: Final = "pinned"
"""The file in a model's folder that names the pinned version."""
_MAX_PIN_BYTES: Final = 100

_NAME: Final = re.compile(MODEL_NAME_PATTERN)


@dataclass(frozen=True)
class Pruned:
    """What `ModelStore.prune` did.

    Attributes:
        deleted: the versions that were deleted, ascending.
        damaged: what is wrong with each damaged version that was left, by version, the highest first.
    """

    deleted: tuple[int, ...]
    damaged: dict[int, str]


class ModelStore:
    """A folder of published models, and the models of installed packages that it does not have itself.

    Args:
        root: the folder of the store. It need not exist yet.
        trusted_keys: the keys of which one must have signed each version that is read; None to read unsigned ones too.
    """

    def __init__(self, root: Path, trusted_keys: TrustedKeys | None = None) -> None:
        self.root = root
        self.trusted_keys = trusted_keys

    def names(self) -> list[str]:
        """Returns the names that have at least one published version, sorted."""
        roots = [root for root in (self.root, *packaged_stores()) if root.is_dir()]
        return sorted(name for name in {each.name for root in roots for each in root.iterdir()} if self._holds(name))

    def versions(self, name: str) -> list[int]:
        """Returns the published versions of a model, ascending. The list is empty if there are none."""
        return published_versions(self.folder(name)) if _NAME.fullmatch(name) else []

    def folder(self, name: str) -> Path:
        """Returns the folder with a model's versions: that of the store, unless only a package has the model."""
        own = self.root / name
        if own.is_dir():
            return own
        return next((found for root in packaged_stores() if (found := root / name).is_dir()), own)

    def pinned(self, name: str) -> int | None:
        """Returns the version that a model is pinned to, or None if it is not pinned.

        Raises:
            ArtifactError: the file of the pin cannot be read, or does not hold a version.
        """
        path = self.root / name / PIN_FILE
        try:
            text = read_small(path, max_bytes=_MAX_PIN_BYTES).decode(errors="replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArtifactError(
                f"{path} cannot be read: {error.strerror}. Pin the model again, or unpin it."
            ) from error
        if (version := version_number(text)) is None:
            raise ArtifactError(f"{path} holds {text[:20]!r}, not a version: pin the model again, or unpin it.")
        return version

    def pin(self, name: str, version: int) -> None:
        """Makes a version current until `unpin`, whatever is published meanwhile.

        Raises:
            UnknownModelError: there is no such model or version.
        """
        self.resolve(name, version)
        if (folder := self.folder(name)) != self.root / name:
            raise ArtifactError(f"Model {name!r} comes from a package in {folder.parent}, and cannot be pinned.")
        with locked(folder):
            write_atomically(folder / PIN_FILE, f"{version}\n".encode())

    def unpin(self, name: str) -> None:
        """Makes the highest version current again.

        Raises:
            UnknownModelError: there is no such model.
        """
        if not self.versions(name):
            self.resolve(name)
        (self.root / name / PIN_FILE).unlink(missing_ok=True)

    def preferred_versions(self, name: str) -> list[int]:
        """Returns the versions that may serve as the current one, best first.

        A pinned model has only its pinned version. Any other model has all versions, the highest first.

        Raises:
            UnknownModelError: there is no such model, or the pinned version is not there.
            ArtifactError: the pin is damaged.
        """
        if not (versions := self.versions(name)):
            self.resolve(name)
        if (pinned := self.pinned(name)) is None:
            return versions[::-1]
        self.resolve(name, pinned)
        return [pinned]

    def resolve(self, name: str, version: int | None = None) -> Path:
        """Returns the folder of a version of a model.

        Args:
            name: the model's name.
            version: the version; None for the current one, which is the pinned version or else the highest.

        Raises:
            UnknownModelError: there is no such model or version. The sentence names those that there are.
            ArtifactError: `version` is None, and the model's pin is damaged.
        """
        versions = self.versions(name)
        if not versions:
            known = ", ".join(self.names()) or "none"
            how = f" To get it: pip install {DEFAULT_MODEL_PACKAGE}." if name == DEFAULT_MODEL else ""
            raise UnknownModelError(f"No model {name!r} in the store {self.root}. Published there: {known}.{how}")
        if version is None:
            pinned = self.pinned(name)
            version = versions[-1] if pinned is None else pinned
        if version not in versions:
            known = ", ".join(map(str, versions))
            raise UnknownModelError(f"Model {name!r} has no version {version}. Published versions: {known}.")
        return self.folder(name) / str(version)

    def read_manifest(self, folder: Path) -> Manifest:
        """Reads the manifest of a version. Where keys are trusted, its signature is checked before a byte is parsed.

        Args:
            folder: the folder of the version.

        Raises:
            SignatureError: no trusted key has signed the manifest.
            ArtifactError: the manifest is missing or invalid.
        """
        if self.trusted_keys is None:
            return Manifest.read(folder)
        return Manifest.from_json(self.trusted_keys.read_signed(folder), origin=str(folder / MANIFEST_FILE))

    def verify(self, name: str, version: int) -> None:
        """Checks that a version is whole: its manifest, its files, and its signature where keys are trusted.

        Raises:
            UnknownModelError: there is no such model or version.
            ArtifactError: the version is damaged, or no trusted key has signed it.
        """
        folder = self.resolve(name, version)
        manifest = self.read_manifest(folder)
        check_place(folder, manifest)
        verify_files(folder, manifest)

    def prune(self, name: str, *, keep: int) -> Pruned:
        """Deletes the versions below the `keep` highest whole ones. The pinned version is never deleted.

        A damaged version does not count as one of those that are kept, so the version that could serve in its place
        stays. A damaged version below those that are kept is deleted like any other.

        Args:
            name: the model's name.
            keep: how many whole versions to keep.

        Returns:
            the versions that were deleted, and those that were found damaged.

        Raises:
            ValueError: `keep` is less than 1.
            ArtifactError: the pin is damaged, so that it is not known what to keep; or the store cannot be written.
        """
        if keep < 1:
            raise ValueError("keep must be at least 1.")
        if not self.versions(name) or self.folder(name) != self.root / name:
            return Pruned((), {})
        with locked(self.root / name):
            pinned = self.pinned(name)
            versions = self.versions(name)
            damaged: dict[int, str] = {}
            whole = 0
            while versions and whole < keep:
                version = versions.pop()
                if reason := self._damage(name, version):
                    damaged[version] = reason
                else:
                    whole += 1
            if pinned in versions:
                versions.remove(pinned)
                if reason := self._damage(name, pinned):
                    damaged[pinned] = reason
            for version in versions:
                self._delete(name, version)
        return Pruned(tuple(versions), damaged)

    def _holds(self, name: str) -> bool:
        try:
            return bool(self.versions(name))
        except OSError:  # a folder that cannot be looked into hides no other model
            return False

    def _damage(self, name: str, version: int) -> str | None:
        try:
            self.verify(name, version)
        except ArtifactError as error:
            return error.detail
        return None

    def _delete(self, name: str, version: int) -> None:
        folder = self.root / name / str(version)
        hidden = self.root / name / f"{TEMPORARY_PREFIX}{version}-deleted"
        try:
            folder.rename(hidden)  # first, so that a reader never sees half a version
            shutil.rmtree(hidden)
        except OSError as error:
            raise ArtifactError(f"{folder} cannot be deleted: {error.strerror}.") from error


def check_place(folder: Path, manifest: Manifest) -> None:
    """Checks that a manifest names the model and the version in whose folder it lies.

    Raises:
        ArtifactError: it names another model or version.
    """
    if (manifest.name, str(manifest.version)) != (folder.parent.name, folder.name):
        raise ArtifactError(f"{folder} holds a manifest of {manifest.name}/{manifest.version}.")


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Compares each file that a manifest lists with the size and the sha256 that it says.

    Raises:
        ArtifactError: a file is missing, or is not the one that was published; or the manifest lists no files.
    """
    if not manifest.files:
        raise ArtifactError(f"{folder / MANIFEST_FILE} lists no files, so that nothing can be verified.")
    for file_name, expected in manifest.files.items():
        path = folder / file_name
        try:
            found = hash_file(path)
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
        if found != expected:
            raise ArtifactError(
                f"{path} is not the file that was published: it has {found.size_bytes} bytes and sha256 "
                f"{found.sha256[:12]}…, the manifest says {expected.size_bytes} and {expected.sha256[:12]}…."
            )
