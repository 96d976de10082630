"""Reads the names of a model's classes from a file beside it, for models that do not have them inside.

pets.pt -> labels.txt, classes.txt or index_to_name.json in the same folder -> the names, in the order of their numbers
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from app.errors import ArtifactError
from app.store.regular_files import read_small

LABEL_FILES: Final = ("labels.txt", "classes.txt", "index_to_name.json")
"""The names of such files: one name a line, or JSON as TorchServe has it. The first one that is there counts."""
_MAX_BYTES: Final = 10_000_000


def label_file(model_file: Path) -> Path | None:
    """Returns the file that names a model's classes; None if there is none beside it."""
    return next((path for name in LABEL_FILES if (path := model_file.with_name(name)).is_file()), None)


def read_labels(path: Path) -> tuple[str, ...]:
    """Reads the names of classes.

    Args:
        path: a text file with a name in each line, or a JSON file: a list of names, or an object from `"0"`, `"1"` and
            so on to names, or to lists whose last element is the name.

    Raises:
        ArtifactError: the file cannot be read, or its content has another form.
    """
    try:
        text = read_small(path, max_bytes=_MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path} is not UTF-8: save it so.") from error
    names = _from_json(text, path) if path.suffix == ".json" else [line.strip() for line in text.rstrip().splitlines()]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ArtifactError(f"{path} must have a name for each class, and no empty ones.")
    return tuple(names)


def _from_json(text: str, path: Path) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not JSON.") from error
    if isinstance(found, dict):
        if found.keys() != {str(number) for number in range(len(found))}:
            raise ArtifactError(f'{path} must number its classes from "0" on, without a gap.')
        found = [found[str(number)] for number in range(len(found))]
    if not isinstance(found, list):
        raise ArtifactError(f"{path} must hold a list, or an object.")
    return [entry[-1] if isinstance(entry, list) and entry else entry for entry in found]
