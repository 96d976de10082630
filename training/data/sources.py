"""Opens labelled images: class folders, torchvision's data sets by name, scikit-learn's digits.

name or folder -> open_source -> Source: class names, labels, pixels of each image by index -> scan, split
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.images.decode import DecodedImage, decode
from training.data.class_folders import list_class_folders
from training.data.names import composed, printable
from training.data.split_folders import SplitName
from training.errors import DataError

TORCHVISION_SETS = ("FashionMNIST", "MNIST", "CIFAR10")
Pixels = npt.NDArray[np.uint8]


class Source(Protocol):
    """Labelled images, which are known by their indices.

    Attributes:
        class_names: the names of the C classes.
        labels: the class of each image, 0 to C - 1.
        given_split: the split of each image if the source has splits of its own, and otherwise None for each.
        notes: sentences on what the source leaves out, or takes otherwise than one might think.
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def labels(self) -> Sequence[int]: ...  # noqa: D102
    @property
    def given_split(self) -> Sequence[SplitName | None]: ...  # noqa: D102
    @property
    def notes(self) -> Sequence[str]: ...  # noqa: D102

    def encoded(self, index: int) -> bytes:
        """Returns an image as the bytes of a file, as a client could send it."""
        ...

    def image(self, index: int, min_shorter_side: int | None = None) -> DecodedImage:
        """Returns an image as RGB, decoded as the service does.

        Args:
            index: the index of the image.
            min_shorter_side: how far a JPEG may be reduced, as `app.images.decode.decode` takes it, in pixels.

        Raises:
            app.images.decode.ImageError: the file is not an image that the service accepts.
            OSError: the file cannot be read.
        """
        ...

    def identifier(self, index: int) -> str:
        """Returns what an image is called, printable: the path of its file below the folder, or its number."""
        ...

    def fingerprint(self) -> str:
        """Returns a digest that is another one once images are added, removed, resized, or moved to another class."""
        ...


@dataclass(frozen=True)
class FolderSource:
    """Images in a folder per class.

    Attributes:
        folder: the folder that holds the class folders, or the split folders with class folders in them.
        class_names: the names of the C classes.
        paths: the path of each image below the folder, as the system names it.
        labels: the class of each image, 0 to C - 1.
        given_split: the split in whose folder an image is; None if the folder has no splits.
        notes: sentences on what was left out, or taken otherwise than one might think.
    """

    folder: Path
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    given_split: tuple[SplitName | None, ...]
    notes: tuple[str, ...] = ()

    def encoded(self, index: int) -> bytes:
        """Returns the file's bytes."""
        return (self.folder / self.paths[index]).read_bytes()

    def image(self, index: int, min_shorter_side: int | None = None) -> DecodedImage:
        """Decodes the file with the service's own decoder."""
        return decode(self.encoded(index), min_shorter_side=min_shorter_side)

    def identifier(self, index: int) -> str:
        """Returns the path below the folder, printable."""
        return printable(self.paths[index])

    def fingerprint(self) -> str:
        """Returns a digest of names, classes, splits and sizes. The files are not read."""
        images = sorted(
            (composed(self.identifier(index)), self.class_names[label], split or "", _size(self.folder / path))
            for index, (path, label, split) in enumerate(zip(self.paths, self.labels, self.given_split, strict=True))
        )
        return _digest(repr(images).encode())


@dataclass(frozen=True)
class ArraySource:
    """Images in memory.

    Attributes:
        class_names: the names of the C classes.
        pixels: the N images, uint8 `(N, H, W)`, grey, or `(N, H, W, 3)`, RGB.
        labels: the class of each image, 0 to C - 1.
        given_split: the split of each image; None for an image that training may split.
    """

    class_names: tuple[str, ...]
    pixels: Pixels
    labels: tuple[int, ...]
    given_split: tuple[SplitName | None, ...]
    notes: tuple[str, ...] = ()

    def encoded(self, index: int) -> bytes:
        """Returns the image as PNG."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels[index]).save(buffer, format="PNG")
        return buffer.getvalue()

    def image(self, index: int, min_shorter_side: int | None = None) -> DecodedImage:
        """Returns the pixels as they are, which is what a lossless file of them decodes to."""
        pixels = Image.fromarray(self.pixels[index]).convert("RGB")
        return DecodedImage(pixels, "PNG", pixels.width, pixels.height, ())

    def identifier(self, index: int) -> str:
        """Returns the image's number."""
        return str(index)

    def fingerprint(self) -> str:
        """Returns a digest of pixels, classes and splits."""
        return _digest(repr((self.class_names, self.labels, self.given_split)).encode() + self.pixels.tobytes())


def open_source(data: str, *, download_folder: Path) -> Source:
    """Opens labelled images.

    Args:
        data: a folder, `digits`, or the name of a torchvision data set.
        download_folder: the folder into which data sets are downloaded.

    Raises:
        DataError: there is no such folder or data set, it has fewer than two classes, or it cannot be downloaded.
    """
    if Path(data).is_dir():
        return folder_source(Path(data))
    if data == "digits":
        return digits_source()
    for name in TORCHVISION_SETS:
        if data.lower().replace("-", "") == name.lower():
            return torchvision_source(name, download_folder)
    raise DataError(
        f"{data!r} is neither a folder nor a data set that is known here ({', '.join(('digits', *TORCHVISION_SETS))}). "
        "Give the path of a folder that holds a folder of images for each class."
    )


def folder_source(folder: Path) -> FolderSource:
    """Returns the images of class folders, or of training, validation and test folders of them.

    Raises:
        DataError: see `list_class_folders`.
    """
    listing = list_class_folders(folder)
    return FolderSource(
        folder, listing.class_names, listing.paths, listing.labels, listing.given_split, notes=listing.notes
    )


def digits_source() -> ArraySource:
    """Returns scikit-learn's 1797 handwritten digits, 8 x 8 pixels (Alpaydin & Kaynak 1998, UCI)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)  # counts of 0 to 16 dark pixels
    count = len(pixels)
    return ArraySource(tuple("0123456789"), pixels, tuple(map(int, digits.target)), (None,) * count)


def torchvision_source(name: str, download_folder: Path) -> ArraySource:
    """Returns a torchvision data set, and downloads it if it is not there. Its own test split stays the test split.

    Args:
        name: the name of the data set, one of `TORCHVISION_SETS`.
        download_folder: the folder into which the data set is downloaded.

    Raises:
        DataError: the data set cannot be downloaded, or its files are damaged.
    """
    from torchvision import datasets

    pixels: list[Pixels] = []
    labels: list[int] = []
    given_split: list[SplitName | None] = []
    class_names: tuple[str, ...] = ()
    for train in (True, False):
        try:
            subset = getattr(datasets, name)(str(download_folder), train=train, download=True)
        except (OSError, RuntimeError, EOFError, gzip.BadGzipFile, pickle.UnpicklingError) as error:
            raw = download_folder.resolve() / ("" if name == "CIFAR10" else f"{name}/raw")
            raise DataError(
                f"{name} cannot be had in {download_folder}: {' '.join(str(error).split())}. Connect this machine to "
                f"the network, or copy the data set's files into {raw} from a machine that has them; a damaged file "
                "must be deleted first."
            ) from error
        pixels.append(np.asarray(subset.data, dtype=np.uint8))
        labels += [int(label) for label in subset.targets]
        given_split += [None if train else "test"] * len(subset.targets)
        class_names = tuple(subset.classes)
    return ArraySource(class_names, np.concatenate(pixels), tuple(labels), tuple(given_split))


def _size(path: Path) -> int:
    """Returns the bytes of a file, or -1 if it is gone or cannot be looked at."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
