"""Reads references to models: which models a setting asks for, and whether requests could tell them apart.

A reference is `NAME`, `NAME/VERSION` or the path of a TorchScript file.

"imagenet, ~/a,b.pt" -> references: ("imagenet", "/home/ann/a,b.pt") -> check_names
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.errors import ArtifactError
from app.store.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, version_number

UNVERSIONED: Final = "unversioned"
"""The version of a file that has no manifest."""


def is_file_reference(reference: str) -> bool:
    """Returns whether a reference is the path of a TorchScript file."""
    return Path(reference).suffix.lower() in {".pt", ".pth", ".ts", ".torchscript"}


def split_reference(reference: str) -> tuple[str, int | None]:
    """Returns the name and the version of a reference `NAME` or `NAME/VERSION`; the version of the former is None.

    Raises:
        ArtifactError: the reference has another form.
    """
    name, _, version = reference.partition("/")
    if version and version_number(version) is None:
        raise ArtifactError(f"{reference!r} is neither NAME nor NAME/VERSION. A TorchScript file ends in .pt.")
    return name, version_number(version)


def references(value: str) -> tuple[str, ...]:
    """Returns the references in a list that is separated by commas.

    A comma inside the path of a file that exists does not separate. `~` in front of a path is the home folder.

    Args:
        value: the list, as a person writes it.
    """
    return tuple(os.path.expanduser(part) if is_file_reference(part) else part for part in _parts(value))


def _parts(value: str) -> Iterator[str]:
    pieces = value.split(",")
    while pieces:
        # The longest path that is there; else one piece.
        count = next((count for count in range(len(pieces), 1, -1) if _is_file(",".join(pieces[:count]).strip())), 1)
        if part := ",".join(pieces[:count]).strip():
            yield part
        pieces = pieces[count:]


def _is_file(reference: str) -> bool:
    with suppress(OSError, ValueError):
        return is_file_reference(reference) and Path(os.path.expanduser(reference)).is_file()
    return False


def check_names(wanted: Sequence[str]) -> None:
    """Checks that no two files have one name and version, because a request chooses a model by them.

    Args:
        wanted: the references of the models to serve.

    Raises:
        ValueError: two files have the same name and version.
    """
    found: dict[tuple[str, str], str] = {}
    files = [reference for reference in wanted if is_file_reference(reference)]
    for reference in files if len(files) > 1 else []:
        name, version = _name_and_version(Path(reference))
        other = found.setdefault((name, version), reference)
        if other is not reference:
            told = f"named {name!r}" if version == UNVERSIONED else f"version {version} of {name!r}"
            raise ValueError(
                f"{other} and {reference} are both {told}, and a request chooses a model by its name: rename one "
                "file, or leave one out"
            )


def _name_and_version(path: Path) -> tuple[str, str]:
    """Returns the name and version that a file will have: those of the manifest inside, if there is one."""
    with suppress(Exception):  # a damaged file is told when it is loaded
        if path.is_file():  # a pipe would never end
            with zipfile.ZipFile(path) as archive:
                entry = next(each for each in archive.infolist() if each.filename.endswith(f"/extra/{MANIFEST_FILE}"))
                if entry.file_size <= MAX_MANIFEST_BYTES:
                    manifest = json.loads(archive.read(entry))
                    return str(manifest["name"]), str(manifest["version"])
    return name_of_file(path), UNVERSIONED


def name_of_file(path: Path) -> str:
    """Returns the name of a model that has none of its own, made from its file's: `My Model.pt` -> `my-model`."""
    return re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._")[:64] or "model"
