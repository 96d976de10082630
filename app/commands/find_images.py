"""Finds the images in files and folders, for the commands that classify or measure without a server.

paths -> files; folders without what systems and storage devices leave in them -> by content or by ending: an image?
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from app.errors import PredictorError
from app.images.clutter import is_clutter
from app.images.recognise import HEAD_BYTES, describe_unknown, recognise

# Files that call themselves images. One that is none, or of a kind that is not served, is an error of its own.
_SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif",
        ".tiff", ".avif", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".jpx", ".dng", ".nef", ".cr2", ".cr3", ".arw",
        ".orf", ".rw2", ".raf", ".psd",
    }
)  # fmt: skip


class UnreadableFileError(PredictorError):
    """A file that is not there, cannot be read, or cannot be used."""

    code = "unreadable_file"


@dataclass(frozen=True)
class FoundFiles:
    """The outcome of a search.

    Attributes:
        images: the files to classify, in the order of the paths, and sorted within a folder.
        left_out: the files in folders that are no images, each with a sentence that says what it is; and the folders
            that hold no image.
        unreadable: the folders that cannot be listed, each with the reason.
    """

    images: list[Path] = field(default_factory=list)
    left_out: list[tuple[Path, str]] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def find_images(paths: Iterable[Path]) -> FoundFiles:
    """Returns the files to classify.

    Args:
        paths: files, and folders. A file is taken in any case. In a folder and below it, a file is taken if its content
            or its ending is that of an image; what systems and storage devices leave there is passed over.

    Raises:
        UnreadableFileError: none of the paths exists.
    """
    paths = list(paths)
    if not any(os.path.lexists(path) for path in paths):
        raise UnreadableFileError(f"There is no file or folder {', '.join(map(str, paths))}.")
    found = FoundFiles()
    for path in paths:
        if not path.is_dir():
            found.images.append(path)  # if it is not there, reading it will say so
            continue
        count = len(found.images)
        for file in _files(path, found, above=frozenset()):
            if reason := _why_no_image(file):
                found.left_out.append((file, reason))
            else:
                found.images.append(file)
        if len(found.images) == count:
            found.left_out.append((path, "There are no images in it."))
    return found


def _files(folder: Path, found: FoundFiles, above: frozenset[Path]) -> Iterator[Path]:
    """Yields the files in a folder and below it, sorted. Links are followed, but never back to a folder above."""
    real = folder.resolve()
    if real in above:
        return
    try:
        entries = sorted(entry for entry in folder.iterdir() if not is_clutter(entry.name))
    except OSError as error:
        found.unreadable.append((folder, f"The folder cannot be read: {error.strerror}."))
        return
    for entry in entries:
        if entry.is_dir():
            yield from _files(entry, found, above | {real})
        else:
            yield entry


def _why_no_image(file: Path) -> str | None:
    """Returns what a file is instead of an image; None for an image, and for a file that calls itself one."""
    if file.exists() and not file.is_file():
        return "This is no regular file."  # a pipe would never end
    if file.suffix.lower() in _SUFFIXES:
        return None
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
    except OSError as error:
        return f"It cannot be read: {error.strerror}."
    if recognise(head):
        return None
    return describe_unknown(head) if head else "This is an empty file."
