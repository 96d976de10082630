"""The model store, `<root>/<name>/<version>/`: list, resolve, pin, verify, prune (`manifest.publish` fills it).

name[, version] -> resolve: the folder of the current version, or of the one asked for -> verify_files: sha256 of each
name -> prune: the newest versions that verify are kept -> the versions older than those are deleted

Current is the version that `<root>/<name>/pinned` names, or without that file the highest.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.errors import ArtifactError, UnknownModelError
from app.store.manifest import MANIFEST_FILE, MODEL_NAME_PATTERN, Manifest
from app.store.publishing import TEMPORARY_PREFIX, hash_file, locked, published_versions, write_atomically
from app.store.signatures import TrustedKeys

PIN_FILE: Final = "pinned"
"""In a model's folder: the version that is current although it is not the highest."""

_NAME: Final = re.compile(MODEL_NAME_PATTERN)


@dataclass(frozen=True)
class Pruned:
    """What `ModelStore.prune` did.

    Attributes:
        deleted: the versions that are gone, ascending.
        damaged: what is wrong with the versions that are left but did not count, newest first.
    """

    deleted: tuple[int, ...]
    damaged: dict[int, str]


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

    def pinned(self, name: str) -> int | None:
        """Returns the version that the model is pinned to, or None.

        Raises:
            ArtifactError: the pin is not a version's number, or cannot be read.
        """
        path = self.root / name / PIN_FILE
        try:
            text = path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ArtifactError(f"{path} cannot be read: {error}.") from error
        if not text.isdecimal():
            raise ArtifactError(f"{path} holds {text[:20]!r}, not a version: pin the model again, or unpin it.")
        return int(text)

    def pin(self, name: str, version: int) -> None:
        """Makes a version current, until `unpin`, whatever is published meanwhile.

        Raises:
            UnknownModelError: there is no such model or version.
        """
        self.resolve(name, version)
        folder = self.root / name
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
        """Returns the versions that may be current, best first: the pinned one alone, or all, the highest first.

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
        """Returns the folder of a version, the current one if None.

        Raises:
            UnknownModelError: there is no such model or version; the sentence names those that there are.
            ArtifactError: the current version is asked for, and the pin that tells it is damaged.
        """
        versions = self.versions(name)
        if not versions:
            known = ", ".join(self.names()) or "none"
            raise UnknownModelError(f"No model {name!r} in the store {self.root}. Published there: {known}.")
        if version is None:
            pinned = self.pinned(name)
            version = versions[-1] if pinned is None else pinned
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

    def verify(self, name: str, version: int) -> None:
        """Checks that a version is whole: its manifest, the signature where keys are trusted, and its files.

        Raises:
            UnknownModelError: there is no such model or version.
            ArtifactError: it is damaged, or not signed by a trusted key.
        """
        folder = self.resolve(name, version)
        manifest = self.read_manifest(folder)
        check_place(folder, manifest)
        verify_files(folder, manifest)

    def prune(self, name: str, *, keep: int) -> Pruned:
        """Deletes the versions older than the `keep` highest whole ones, except the pinned one.

        A damaged version takes nobody's place: what could serve instead of it stays. It is deleted when it is older
        than those that are kept, as it would be if it were whole.

        Returns:
            what was deleted, and what was found damaged.

        Raises:
            ValueError: `keep` is less than 1.
            ArtifactError: the pin is damaged, so that what to keep is not known; or the store cannot be written.
        """
        if keep < 1:
            raise ValueError("keep must be at least 1.")
        if not self.versions(name):
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
    """Checks that a manifest is that of the version in whose folder it lies.

    Raises:
        ArtifactError: it is another's.
    """
    if (manifest.name, str(manifest.version)) != (folder.parent.name, folder.name):
        raise ArtifactError(f"{folder} holds a manifest of {manifest.name}/{manifest.version}.")


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


def is_file_reference(reference: str) -> bool:
    """Returns whether a reference is the path of a TorchScript file."""
    return Path(reference).suffix in {".pt", ".pth", ".ts", ".torchscript"}


def split_reference(reference: str) -> tuple[str, int | None]:
    """Returns the name and the version of `NAME` or `NAME/VERSION`.

    Raises:
        ArtifactError: it is neither.
    """
    name, _, version = reference.partition("/")
    if version and not version.isdecimal():
        raise ArtifactError(f"{reference!r} is neither NAME, NAME/VERSION nor the path of a .pt file.")
    return name, int(version) if version else None
