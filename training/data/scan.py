"""Decodes every image once before training, as the service does, and tells what is wrong with the data.

Source -> scan -> Scan: unreadable files, hashes, counts -> make_split, duplicates, warnings, <run>/scan.json
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from app.errors import ImageError
from training.data.near_duplicates import MIN_SIDE, THUMBNAIL_SIDE, NearDuplicate, Pixels, thumbnail
from training.data.sources import Source
from training.errors import DataError

NEAR_EMPTY_IMAGES = 10
"""A warning names each class with fewer images: its part of the test split says next to nothing."""

IMBALANCE_RATIO = 10
"""A warning is given if the largest class has at least this many times the images of the smallest."""

_EXAMPLES = 3  # how many a sentence names


@dataclass(frozen=True)
class Unreadable:
    """An image that is left out.

    Attributes:
        index: the index of the image in the source.
        path: what the source calls the image, the path of its file.
        reason: a sentence that says why the image cannot be read.
    """

    index: int
    path: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """What the scan of a source found.

    Attributes:
        image_count: the number of readable images.
        class_counts: the number of readable images of each class, by the name of the class.
        unreadable: the images that cannot be read and are left out.
        hashes: a hash of the pixels of each image, by index; None for an image that cannot be read.
        smallest_side: the smallest width or height of a readable image, in pixels.
        largest_side: the largest width or height of a readable image, in pixels.
        thumbnails: what `near_duplicates` compares, uint8 `(N, 16, 16)`; zeros for an image that is not compared.
    """

    image_count: int
    class_counts: dict[str, int]
    unreadable: tuple[Unreadable, ...]
    hashes: tuple[str | None, ...]
    smallest_side: int
    largest_side: int
    thumbnails: Pixels = field(default_factory=lambda: _thumbnails([]), repr=False, compare=False)

    @property
    def readable(self) -> list[int]:
        """The indices of the readable images, ascending."""
        return [index for index, digest in enumerate(self.hashes) if digest is not None]

    def warnings(self) -> list[str]:
        """Returns a sentence for each thing about the classes that will harm the training."""
        sentences = []
        for name, count in self.class_counts.items():
            if count < NEAR_EMPTY_IMAGES:
                sentences.append(f"The class {name!r} has only {count} readable images: add more.")
        largest, smallest = max(self.class_counts.values()), min(self.class_counts.values())
        if smallest and largest >= IMBALANCE_RATIO * smallest:
            sentences.append(
                f"The largest class has {largest} images, the smallest {smallest}: consider class_weights: balanced."
            )
        if self.unreadable:
            examples = {item.reason: item.path for item in reversed(self.unreadable)}  # the first of each reason
            counts = Counter(item.reason for item in self.unreadable).most_common(_EXAMPLES)
            reasons = " ".join(f"{examples[reason]} (one of {count}): {reason}" for reason, count in counts)
            sentences.append(
                f"{len(self.unreadable)} files are unreadable and left out, such as {reasons} All are in scan.json."
            )
        return sentences

    def to_json(self) -> dict[str, Any]:
        """Returns the content of `scan.json`, without the hashes and thumbnails."""
        content = asdict(self)
        del content["hashes"], content["thumbnails"]
        return content


def scan(source: Source, *, min_shorter_side: int) -> Scan:
    """Decodes every image of a source.

    Args:
        source: the source of the images.
        min_shorter_side: how far a JPEG may be reduced, as `app.images.decode.decode` takes it, in pixels.

    Raises:
        DataError: a class has no readable image.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes without the GIL
        looks = list(pool.map(lambda index: _look(source, index, min_shorter_side), range(len(source.labels))))
    unreadable = tuple(look for look in looks if isinstance(look, Unreadable))
    hashes = tuple(None if isinstance(look, Unreadable) else look.digest for look in looks)
    counts = Counter(label for label, digest in zip(source.labels, hashes, strict=True) if digest is not None)
    class_counts = {name: counts[label] for label, name in enumerate(source.class_names)}
    for name, count in class_counts.items():
        if count == 0:
            example = next((f" ({look.path}: {look.reason})" for look in unreadable), "")
            raise DataError(
                f"The class {name!r} has no readable image{example}. Replace its files, or remove the class."
            )
    sides = [side for look in looks if not isinstance(look, Unreadable) for side in look.size]
    thumbnails = _thumbnails([None if isinstance(look, Unreadable) else look.thumbnail for look in looks])
    return Scan(sum(class_counts.values()), class_counts, unreadable, hashes, min(sides), max(sides), thumbnails)


def duplicates(source: Source, scan: Scan, split_of: Sequence[str | None]) -> list[str]:
    """Returns a sentence for each kind of duplicate that misleads: the same image in two splits, or in two classes.

    Args:
        source: the source of the images.
        scan: what the scan of the source found.
        split_of: the split of each image; None for an image that is left out.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index in scan.readable:
        groups[scan.hashes[index] or ""].append(index)
    repeated = [group for group in groups.values() if len(group) > 1]
    sentences = []
    across = [group for group in repeated if len({split_of[index] for index in group}) > 1]
    if across:
        names = ", ".join(source.identifier(index) for index in across[0])
        sentences.append(
            f"{len(across)} images appear in more than one split, such as {names}: the test is too easy by them. "
            "Remove the copies."
        )
    contradicting = [group for group in repeated if len({source.labels[index] for index in group}) > 1]
    if contradicting:
        names = ", ".join(source.identifier(index) for index in contradicting[0])
        sentences.append(f"{len(contradicting)} images appear in more than one class, such as {names}: decide for one.")
    return sentences


def near_duplicates_told(source: Source, scan: Scan, found: Sequence[NearDuplicate]) -> list[str]:
    """Returns a sentence if there are images that resemble one of another split.

    Copies are not counted: `duplicates` tells them.

    Args:
        source: labelled images.
        scan: what a look at them found.
        found: the pairs.
    """
    pairs = [pair for pair in found if scan.hashes[pair.index] != scan.hashes[pair.other]]
    if not pairs:
        return []
    examples = "; ".join(
        f"{source.identifier(pair.index)} and {source.identifier(pair.other)}" for pair in pairs[:_EXAMPLES]
    )
    return [
        f"{len(pairs)} validation and test images look nearly like an image of another split, such as {examples}: the "
        "test is too easy by them. Put such images into one split. All are in near_duplicates.json."
    ]


@dataclass(frozen=True)
class _Look:
    digest: str
    size: tuple[int, int]
    thumbnail: Pixels | None


def _thumbnails(found: Sequence[Pixels | None]) -> Pixels:
    thumbnails = np.zeros((len(found), THUMBNAIL_SIDE, THUMBNAIL_SIDE), dtype=np.uint8)
    for index, pixels in enumerate(found):
        if pixels is not None:
            thumbnails[index] = pixels
    return thumbnails


def _look(source: Source, index: int, min_shorter_side: int) -> _Look | Unreadable:
    try:
        image = source.image(index, min_shorter_side)
    except ImageError as error:
        return Unreadable(index, source.identifier(index), error.detail)
    except OSError as error:
        return Unreadable(index, source.identifier(index), f"It cannot be read: {error.strerror}.")
    size = (image.width, image.height)
    digest = hashlib.blake2b(repr(size).encode() + image.pixels.tobytes(), digest_size=16).hexdigest()
    return _Look(digest, size, thumbnail(image.pixels) if min(size) >= MIN_SIDE else None)
