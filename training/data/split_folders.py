"""Tells split folders from class folders, by their names and by what lies in them.

folder -> split_folders -> the training, validation and test folder; none if the folder holds the classes themselves
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Literal

from app.images.clutter import is_clutter
from training.data.names import composed, printable
from training.errors import DataError

SplitName = Literal["train", "val", "test"]

_SPLIT_WORDS: dict[SplitName, str] = {
    "train": "train|training|trn",
    "val": "val|valid|validation|validate|dev|development|eval|evaluation",
    "test": "tests?|testing|tst|holdout",
}
_BESIDE_A_SPLIT_WORD = "sets?|data|datasets?|images?|imgs?|splits?|folders?|photos?|pictures?|samples?|examples?"
"""Words that a split folder's name may have beside `train`, as in `training_set` or `TrainImages`."""


def split_folders(folder: Path, notes: list[str]) -> dict[SplitName, Path]:
    """Returns the folders of the splits; empty if the folder holds the class folders themselves.

    `Train` and `test_set` are splits by their names alone, `seg_train` and `seg_test` because they differ in nothing
    else. `train_station` is a class.

    Args:
        folder: the folder of the whole data set.
        notes: sentences for the person who trains; one is added if a folder named `train` is taken as a class.

    Raises:
        DataError: it is not clear which folders are splits, or there is none for training.
    """
    by_rest: dict[str, dict[SplitName, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in subfolders(folder):
        named = _split_word(path.name)
        if named is not None:
            by_rest[named[1]][named[0]].append(path)
    found = [splits for rest, splits in by_rest.items() if not rest or ("train" in splits and len(splits) > 1)]
    if not found:
        return {}
    names = ", ".join(printable(path.name) for splits in found for paths in splits.values() for path in paths)
    where = printable(str(folder))
    if len(found) > 1 or any(len(paths) > 1 for paths in found[0].values()):
        raise DataError(
            f"{where} has several folders that are named as the same split ({names}). Keep one folder for training, "
            "one for validation and one for the test, or give the folder that holds them."
        )
    splits: dict[SplitName, Path] = {
        split: found[0][split][0] for split in ("train", "val", "test") if split in found[0]
    }
    if "train" not in splits:
        raise DataError(
            f"{where} has {names}, named as a split, but no training folder. Put the class folders for training into "
            "a folder named train beside it, or rename it if it is a class."
        )
    if not subfolders(splits["train"]):
        named_train = splits["train"].name.casefold() == "train"
        if named_train and len(splits) == 1 and len(subfolders(folder)) > 1:  # a class of railway trains
            notes.append(f"{printable(splits['train'].name)} is taken as a class: there is no class folder in it.")
            return {}
        raise DataError(
            f"{where} has {names}, named as splits, but {printable(splits['train'].name)} has no folder per class. "
            "Sort the images of each split into a folder for each class; rename the folders if they are the classes."
        )
    return splits


def _split_word(name: str) -> tuple[SplitName, str] | None:
    """Returns the split that a name speaks of and what else it says; None if it speaks of none, or of several."""
    words = re.findall(r"[^\W\d_]+", composed(name).casefold())
    found: list[SplitName] = []
    rest = []
    for word in words:
        split = _split_of(word)
        if split is not None:
            found.append(split)
        elif not re.fullmatch(_BESIDE_A_SPLIT_WORD, word):
            rest.append(word)
    return (found[0], " ".join(rest)) if len(found) == 1 else None


def _split_of(word: str) -> SplitName | None:
    for split, pattern in _SPLIT_WORDS.items():
        if re.fullmatch(f"(?:{pattern})(?:{_BESIDE_A_SPLIT_WORD})?", word):
            return split
    return None


def refuse_splits_within(class_folder: Path) -> None:
    """Refuses a class folder that holds split folders.

    Raises:
        DataError: the folder holds one for training and another one.
    """
    named = [(path, _split_word(path.name)) for path in subfolders(class_folder)]
    splits = {word[0]: printable(path.name) for path, word in named if word is not None and not word[1]}
    if "train" in splits and len(splits) > 1:
        name = printable(class_folder.name)
        raise DataError(
            f"{printable(str(class_folder))} holds {' and '.join(splits.values())}, named as splits. Splits come "
            f"first, then classes: {splits['train']}/{name}/. If {name} is the whole data set, give that folder."
        )


def wrapped(folder: Path) -> Path | None:
    """Returns the one folder in a split folder if it is the split itself: archives are often unpacked so.

    None if the class folders lie in the split folder, as they should.
    """
    inner = subfolders(folder)
    if len(inner) != 1 or _split_word(inner[0].name) != _split_word(folder.name) or not subfolders(inner[0]):
        return None
    return inner[0]


def shown(path: Path, root: Path) -> str:
    """Returns a path below `root` as it can be printed; the whole path if it is not below."""
    return printable(path.relative_to(root).as_posix() if path != root and path.is_relative_to(root) else str(path))


def subfolders(folder: Path) -> list[Path]:
    """Returns the folders and links to folders that lie directly in a folder, sorted; those of systems are left out."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_clutter(path.name))
