"""Reads references to models: which models a setting asks for, and whether requests could tell them apart.

A reference is `NAME`, `NAME/VERSION` or the path of a TorchScript file. With
`ALIAS=` before it, the model has another name.

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
from app.store.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, MODEL_FILE, version_number

_ALIAS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
UNVERSIONED: Final = "unversioned"
"""The version of a file that has no manifest."""


def split_alias(reference: str) -> tuple[str | None, str]:
    """Returns the other name that a reference gives its model, None if it gives none; and the reference without it."""
    alias, equals, source = reference.partition("=")
    if equals and source and _ALIAS.fullmatch(alias) and not _is_file(reference):
        return alias, source
    return None, reference


def is_file_reference(reference: str) -> bool:
    """Returns whether a reference without an alias is the path of a TorchScript file."""
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

    A comma inside the path of a file that exists does not separate. `~` in front of a path is the home folder. The path
    of a folder stands for the one model in it.

    Args:
        value: the list, as a person writes it.

    Raises:
        ValueError: a folder has no model, or several.
    """
    return tuple(_as_meant(part) for part in _parts(value))


def model_file_in(folder: Path) -> Path:
    """Returns the file of the one model in a folder.

    A folder has a published version (`model.pt` and `manifest.json`), a store of one model (`NAME/VERSION/`), of which
    the highest version counts, or one TorchScript file.

    Args:
        folder: the folder.

    Raises:
        ValueError: it has no model, or several.
    """
    if (folder / MANIFEST_FILE).is_file():
        return folder / MODEL_FILE
    entries = sorted(folder.iterdir())
    stored = [entry for entry in entries if entry.is_dir() and _versions_in(entry)]
    files = [entry for entry in entries if entry.is_file() and is_file_reference(entry.name)]
    if len(stored) + len(files) != 1:
        found = ", ".join(entry.name for entry in [*stored, *files][:5]) or "none"
        raise ValueError(f"{folder} must have exactly one model; found: {found}")
    return files[0] if files else stored[0] / str(max(_versions_in(stored[0]))) / MODEL_FILE


def _versions_in(folder: Path) -> list[int]:
    numbers = (version_number(entry.name) for entry in folder.iterdir() if (entry / MANIFEST_FILE).is_file())
    return [number for number in numbers if number is not None]


def _as_meant(part: str) -> str:
    alias, source = split_alias(part)
    path = os.path.expanduser(source)
    if is_file_reference(source):
        source = path
    elif os.path.isabs(path) and Path(path).is_dir():
        source = str(model_file_in(Path(path)))
    return source if alias is None else f"{alias}={source}"


def _parts(value: str) -> Iterator[str]:
    pieces = value.split(",")
    while pieces:
        # The longest path that is there; else one piece.
        count = next(
            (
                count
                for count in range(len(pieces), 1, -1)
                if _is_file(split_alias(",".join(pieces[:count]).strip())[1])
            ),
            1,
        )
        if part := ",".join(pieces[:count]).strip():
            yield part
        pieces = pieces[count:]


def _is_file(path: str) -> bool:
    with suppress(OSError, ValueError):
        return is_file_reference(path) and Path(os.path.expanduser(path)).is_file()
    return False


def check_names(wanted: Sequence[str]) -> None:
    """Checks that no two models have one name and version, because a request chooses a model by them.

    Args:
        wanted: the references of the models to serve.

    Raises:
        ValueError: two files have the same name and version, or an alias is the name of another model.
    """
    names = [alias or _told_name(source) for alias, source in map(split_alias, wanted)]
    for alias, _ in map(split_alias, wanted):
        if alias is not None and names.count(alias) > 1:
            raise ValueError(f"{alias!r} is the name of two models, and a request chooses a model by its name")
    found: dict[tuple[str, str], str] = {}
    files = [source for alias, source in map(split_alias, wanted) if alias is None and is_file_reference(source)]
    for reference in files if len(files) > 1 else []:
        name, version = _name_and_version(Path(reference))
        other = found.setdefault((name, version), reference)
        if other is not reference:
            told = f"named {name!r}" if version == UNVERSIONED else f"version {version} of {name!r}"
            raise ValueError(
                f"{other} and {reference} are both {told}, and a request chooses a model by its name: rename one "
                "file, or leave one out"
            )


def _told_name(source: str) -> str:
    """Returns the name that a reference tells; that of a file is known when the file is read."""
    return "" if is_file_reference(source) else source.partition("/")[0]


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
