"""Finds images of one split that look nearly like an image of another: saved again, resized, cropped a little.

Scan.thumbnails -> difference hashes, all pairs at once -> correlation of those that are close -> NearDuplicate

A difference hash says for each place of a thumbnail whether the next one is brighter (Krawetz, "Kind of Like That",
2013). Alone it mistakes pictures with large plain areas for each other: a pair must also correlate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

THUMBNAIL_SIDE = 16
"""The side of the grey thumbnails that are compared, in pixels."""

MIN_SIDE = 64
"""The least shorter side, in pixels, of an image that is compared. Smaller ones, such as digits, differ too little."""

_MIN_CONTRAST = 8.0  # standard deviation of a thumbnail in levels: plain pictures are alike without being copies
# Measured on 23 photos: all are found again as JPEG of quality 20, resized to a third, brightened, in grey or with
# noise, and 70 % of those that are cropped by 2 % at each side. Of 33 million pairs of pieces of photos, 64 pixels
# wide, turned and mirrored, none is taken for alike.
_MAX_DISTANCE = 10  # bits of 112
_MIN_CORRELATION = 0.95
_PAIRS_AT_ONCE = 4_000_000  # 8 bytes each: little memory, and near the processor


@dataclass(frozen=True)
class NearDuplicate:
    """An image of the validation or test split, and the image of another split that it resembles most.

    Attributes:
        index: the image's position in the source.
        other: the position of the one that it resembles.
        similarity: the correlation of their thumbnails, up to 1.
    """

    index: int
    other: int
    similarity: float


def thumbnail(image: Image.Image) -> Pixels:
    """Returns an image as grey levels, uint8 `(16, 16)`."""
    side = THUMBNAIL_SIDE
    return np.asarray(image.convert("L").resize((side, side), Image.Resampling.BOX))


def near_duplicates(thumbnails: Pixels, split_of: Sequence[str | None]) -> list[NearDuplicate]:
    """Compares each validation image with the training images, and each test image with both.

    Args:
        thumbnails: uint8 `(N, 16, 16)`; zeros for an image that is not compared.
        split_of: the split of each image; None where it is left out.

    Returns:
        the images that resemble one of another split, in the order of the source.
    """
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)  # (N, 256)
    contrast = flat.std(axis=1)
    splits = np.where(contrast >= _MIN_CONTRAST, np.array([split or "" for split in split_of]), "")
    found = []
    for split, earlier in (("val", ["train"]), ("test", ["train", "val"])):
        held_out, others = np.flatnonzero(splits == split), np.flatnonzero(np.isin(splits, earlier))
        if len(others):
            found += _nearest(thumbnails, flat, held_out, others)
    return sorted(found, key=lambda pair: pair.index)


def _nearest(
    thumbnails: Pixels, flat: npt.NDArray[np.float32], held_out: npt.NDArray[np.intp], others: npt.NDArray[np.intp]
) -> list[NearDuplicate]:
    other_hashes, other_vectors = _hashes(thumbnails[others]), _normalised(flat[others])
    found = []
    rows_at_once = max(1, _PAIRS_AT_ONCE // len(others))
    for start in range(0, len(held_out), rows_at_once):
        rows = held_out[start : start + rows_at_once]
        distances = _distances(_hashes(thumbnails[rows]), other_hashes)  # (R, M)
        close = distances <= _MAX_DISTANCE
        some = np.flatnonzero(close.any(axis=1))
        if not len(some):
            continue
        correlations = np.where(close[some], _normalised(flat[rows[some]]) @ other_vectors.T, -1)
        best = correlations.argmax(axis=1)
        for row, column, similarity in zip(some, best, correlations.max(axis=1), strict=True):
            if similarity >= _MIN_CORRELATION:
                found.append(NearDuplicate(int(rows[row]), int(others[column]), float(similarity)))
    return found


def _hashes(thumbnails: Pixels) -> npt.NDArray[np.uint64]:
    """Returns the 112 bits of each thumbnail as two numbers, `(N, 2)`: brighter to the right, brighter below."""
    half = THUMBNAIL_SIDE // 2
    blocks = thumbnails.reshape(-1, half, 2, half, 2).astype(np.int16).sum(axis=(2, 4))  # (N, 8, 8)
    bits = [(blocks[:, :, 1:] > blocks[:, :, :-1]), (blocks[:, 1:] > blocks[:, :-1])]  # (N, 8, 7), (N, 7, 8)
    packed = [np.packbits(np.pad(part.reshape(len(part), -1), ((0, 0), (0, 8))), axis=1) for part in bits]
    return np.concatenate([part.view(np.uint64) for part in packed], axis=1)


def _distances(left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """Returns in how many bits each hash of `left` differs from each of `right`, `(L, R)`."""
    counts: npt.NDArray[np.uint8] = np.bitwise_count(left[:, None, 0] ^ right[None, :, 0])
    counts += np.bitwise_count(left[:, None, 1] ^ right[None, :, 1])
    return counts


def _normalised(flat: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns thumbnails with mean 0 and length 1, so that a product of two is their correlation."""
    centred: npt.NDArray[np.float32] = flat - flat.mean(axis=1, keepdims=True)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    return centred
