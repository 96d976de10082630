"""Lists the images of class folders, and counts whatever it leaves out.

folder -> split folders, where there are any -> class folders -> files, links followed -> FolderListing
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from app.images.clutter import is_clutter
from training.data.names import class_name, printable
from training.data.split_folders import SplitName, refuse_splits_within, shown, split_folders, subfolders, wrapped
from training.errors import DataError


@dataclass(frozen=True)
class FolderListing:
    """The images of class folders.

    Attributes:
        class_names: the C names of the classes.
        paths: the path of each image below the folder, as the system names it.
        labels: the class of each image, 0 to C - 1.
        given_split: the split of each image, or None if the folder has no splits.
        notes: a sentence for each kind of thing that was left out, or taken otherwise than one might think.
    """

    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    given_split: tuple[SplitName | None, ...]
    notes: tuple[str, ...]


class LeftOut:
    """Counts the files that are left out, by reason, with an example of each.

    Args:
        root: the folder that the paths of examples are shown below.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, reason: str, path: Path, count: int = 1) -> None:
        """Counts files.

        Args:
            reason: why, in words that can follow a colon, such as `not in a class folder`.
            path: the file, or the folder that all of them are in.
            count: the number of files.
        """
        if count:
            self._counts[reason] += count
            self._examples.setdefault(reason, shown(path, self.root))

    def sentences(self) -> list[str]:
        """Returns a sentence for each reason."""
        return [
            f"{count} {'file' if count == 1 else 'files'} left out, such as {self._examples[reason]}: {reason}."
            for reason, count in self._counts.items()
        ]


_CLUTTER = "hidden, or left there by a system or a storage device"
_LOOSE = "not in a class folder"
_DANGLING = "a link to something that is not there (fetch it, or delete the link)"
_LISTED_LINK = "a link to a folder that is listed already"
_SPECIAL = "not a regular file"


def list_class_folders(folder: Path) -> FolderListing:
    """Lists the images of a folder per class, or of split folders that hold a folder per class.

    The classes are those of the training folder. Names are compared in Unicode's composed form.

    Raises:
        DataError: fewer than two classes, an empty class, a class in another split that the training folder has not,
            folders of which it is not clear whether they are splits, or a folder that cannot be read.
    """
    try:
        return _list(folder)
    except OSError as error:
        raise cannot_list(error) from error


def cannot_list(error: OSError) -> DataError:
    """Returns the error that names the folder that cannot be listed."""
    return DataError(f"{printable(str(error.filename))} cannot be read: {error.strerror}. Check its permissions.")


def files_below(folder: Path, left_out: LeftOut) -> list[Path]:
    """Returns the files in a folder and below it, sorted. Links are followed, each folder is listed once.

    Args:
        folder: the folder of one class.
        left_out: counts the files that are passed over.
    """
    resolved = folder.resolve()
    listed = {_identity(above) for above in (resolved, *resolved.parents)}  # a link to one of these leads in a circle
    files, pending = [], [folder]
    while pending:
        for path in sorted(pending.pop().iterdir()):
            if is_clutter(path.name):
                left_out.add(_CLUTTER, path, _file_count(path))
            elif path.is_dir():
                if _identity(path) in listed:
                    left_out.add(_LISTED_LINK, path)
                else:
                    listed.add(_identity(path))
                    pending.append(path)
            elif path.is_file():
                files.append(path)
            else:
                left_out.add(_DANGLING if path.is_symlink() else _SPECIAL, path)
    return sorted(files)


def count_loose(folder: Path, used: Collection[Path], left_out: LeftOut) -> None:
    """Counts as left out what lies in a folder beside the folders that are used."""
    for path in sorted(folder.iterdir()):
        if path not in used:
            left_out.add(_CLUTTER if is_clutter(path.name) else _LOOSE, path, _file_count(path))


def _list(folder: Path) -> FolderListing:
    notes: list[str] = []
    left_out = LeftOut(folder)
    splits = split_folders(folder, notes)
    if splits:
        count_loose(folder, splits.values(), left_out)
        splits = {split: _unwrap(split, path, notes, left_out) for split, path in splits.items()}
    whole = splits.get("train", folder)
    class_names = tuple(dict.fromkeys(class_name(path.name) for path in subfolders(whole)))
    if len(class_names) < 2:
        raise DataError(_too_few_classes(whole, class_names))
    images: list[tuple[str, int, SplitName | None]] = []
    deeper: list[Path] = []
    parts: list[tuple[SplitName | None, Path]] = [*splits.items()] if splits else [(None, folder)]
    for split, split_folder in parts:
        class_folders = subfolders(split_folder)
        if not class_folders:
            notes.append(
                f"{shown(split_folder, folder)} has no class folders: its {_file_count(split_folder)} files have no "
                f"labels and are left out, and the {split} split is taken from the training images."
            )
            continue
        count_loose(split_folder, class_folders, left_out)
        _check_names(class_folders, class_names, notes, whole)
        for class_folder in class_folders:
            refuse_splits_within(class_folder)
            files = files_below(class_folder, left_out)
            if not files and split in (None, "train"):
                raise DataError(
                    f"The class folder {printable(str(class_folder))} is empty. Add images to it, or remove it."
                    + "".join(f" {sentence}" for sentence in left_out.sentences())
                )
            deeper += [path for path in files if path.parent != class_folder]
            label = class_names.index(class_name(class_folder.name))
            images += [(str(path.relative_to(folder)), label, split) for path in files]
    if deeper:
        notes.append(_tell_deeper(deeper, len(images), folder, subfolders(whole)))
    paths, labels, given_split = zip(*images, strict=True)
    return FolderListing(class_names, paths, labels, given_split, (*notes, *left_out.sentences()))


def _unwrap(split: SplitName, folder: Path, notes: list[str], left_out: LeftOut) -> Path:
    """Returns the folder that holds the class folders of a split."""
    inner = wrapped(folder)
    if inner is None:
        return folder
    notes.append(f"The {split} split is taken from {shown(inner, folder.parent)}, one folder deeper.")
    count_loose(folder, [inner], left_out)
    return inner


def _check_names(class_folders: list[Path], class_names: tuple[str, ...], notes: list[str], whole: Path) -> None:
    for name, count in Counter(class_name(path.name) for path in class_folders).items():
        path = next(path for path in class_folders if class_name(path.name) == name)
        if name not in class_names:
            raise DataError(
                f"{printable(str(path))} is a class that is not in {printable(whole.name)}/ "
                f"({', '.join(class_names)}). Classes are matched by name: rename it, move it, or add it to "
                f"{printable(whole.name)}/."
            )
        if count > 1:
            notes.append(
                f"{printable(str(path.parent))} has {count} folders that are named {name!r}, with the accents coded "
                "differently. They are one class."
            )


def _too_few_classes(folder: Path, class_names: tuple[str, ...]) -> str:
    found = f"only {class_names[0]!r}" if class_names else "none"
    inner = subfolders(folder)
    deeper = (
        f" If the class folders are in {printable(str(inner[0]))}, give that folder."
        if len(inner) == 1 and len(subfolders(inner[0])) > 1
        else ""
    )
    return (
        f"{printable(str(folder))} must hold a folder for each of at least two classes; there is {found}. "
        f"A classifier tells classes apart: add a second one, such as photos of anything else.{deeper}"
    )


def _tell_deeper(deeper: list[Path], image_count: int, root: Path, class_folders: list[Path]) -> str:
    inner = [{path.name for path in subfolders(class_folder)} for class_folder in class_folders]
    shared = sorted(set.intersection(*inner))
    repeated = (
        f" Each class has folders named {', '.join(map(printable, shared))}: if those are the classes, move them up."
        if len(shared) > 1
        else ""
    )
    return (
        f"{len(deeper)} of {image_count} files lie in a folder inside their class folder, such as "
        f"{shown(deeper[0].parent, root)}; they count as the class.{repeated}"
    )


def _file_count(path: Path) -> int:
    """Returns how many files a folder has in all; 1 for anything that is no folder, and for a link."""
    if path.is_symlink() or not path.is_dir():
        return 1
    return sum(len(names) for _, _, names in os.walk(path))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
