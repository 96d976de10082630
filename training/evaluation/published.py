"""Measures a published model on a folder of labelled images, such as photos of your own.

<store>/<name>/<version> + <folder>/<class>/* -> decode, resize as the service does -> classify, batched -> Metrics
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from app.errors import ArtifactError, ImageError
from app.images.decode import MIN_DETAIL, decode
from app.images.geometry import Geometry
from app.images.resize import resize_and_crop
from app.store.manifest import MODEL_FILE, Manifest
from app.store.model_store import ModelStore
from app.store.references import split_reference
from training.data.class_folders import LeftOut, cannot_list, count_loose, files_below
from training.data.names import class_name, composed, printable
from training.data.pixel_store import as_planes
from training.data.split_folders import subfolders
from training.errors import DataError
from training.evaluation.metrics import Metrics, measure

_BATCH_SIZE = 32


@dataclass(frozen=True)
class PublishedEvaluation:
    """How good a published model is on a folder of images.

    Attributes:
        manifest: the manifest of the version that was measured.
        metrics: the figures on the readable images, over all classes of the model.
        unreadable: the path of each file that could not be read, and the reason.
        notes: a sentence for each kind of file that was passed over.
    """

    manifest: Manifest
    metrics: Metrics
    unreadable: tuple[tuple[Path, str], ...]
    notes: tuple[str, ...]


def evaluate_published(model: str, folder: Path, *, store_root: Path) -> PublishedEvaluation:
    """Evaluates a published model on class folders.

    Folders are matched to the classes of the model by name, never by position. A class may have no folder.

    Args:
        model: `NAME` or `NAME/VERSION`. A name alone means the version that serves: the pinned one, or
            the highest if none is pinned.
        folder: the folder that holds a folder of images for each class.
        store_root: the folder of the model store.

    Raises:
        UnknownModelError: there is no such model or version.
        ArtifactError: the reference, the pin or the artifact is damaged.
        DataError: the name of a folder is not that of exactly one class, a folder cannot be read, or no image can be.
    """
    version_folder = ModelStore(store_root).resolve(*split_reference(model))
    manifest = Manifest.read(version_folder)
    left_out = LeftOut(folder)
    try:
        files = _labelled_files(folder, manifest, left_out)
    except OSError as error:
        raise cannot_list(error) from error
    try:
        scripted = torch.jit.load(str(version_folder / MODEL_FILE), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise ArtifactError(f"{version_folder / MODEL_FILE} cannot be loaded: {str(error).splitlines()[0]}") from error
    unreadable: list[tuple[Path, str]] = []
    probabilities, labels = [], []
    geometry = Geometry.of(manifest.preprocessing)
    for batch in _batches(files):
        images = []
        for path, label in batch:
            try:
                image = decode(path.read_bytes(), min_shorter_side=MIN_DETAIL * geometry.resize_size)
            except (ImageError, OSError) as error:
                unreadable.append((path, str(error)))
                continue
            crop = resize_and_crop(image, geometry)
            images.append(as_planes(crop))  # (3, S, S)
            labels.append(label)
        if images:
            probabilities.append(scripted.classify(torch.stack(images)))
    if not probabilities:
        raise DataError(f"None of the {len(files)} files in {folder} can be read; the first: {unreadable[0][1]}")
    metrics = measure(torch.cat(probabilities), torch.tensor(labels), manifest.class_names)
    return PublishedEvaluation(manifest, metrics, tuple(unreadable), tuple(left_out.sentences()))


def _labelled_files(folder: Path, manifest: Manifest, left_out: LeftOut) -> list[tuple[Path, int]]:
    """Returns the path of each file, and the position of its class in the model."""
    if not folder.is_dir():
        raise DataError(f"{printable(str(folder))} is no folder. Give one that has a folder for each class.")
    names = [composed(name) for name in manifest.class_names]
    class_folders = subfolders(folder)
    count_loose(folder, class_folders, left_out)
    files = []
    for class_folder in class_folders:
        name = class_name(class_folder.name)
        if name not in names:
            raise DataError(_unknown_class(class_folder, manifest))
        if names.count(name) > 1:  # ImageNet has two of "crane" and of "maillot"
            raise DataError(
                f"{printable(str(class_folder))}: {manifest.name}/{manifest.version} has several classes of that name."
            )
        files += [(path, names.index(name)) for path in files_below(class_folder, left_out)]
    if not files:
        raise DataError(
            f"{printable(str(folder))} has no images: it needs a folder for each class, with images in it."
            + "".join(f" {sentence}" for sentence in left_out.sentences())
        )
    return files


def _unknown_class(class_folder: Path, manifest: Manifest) -> str:
    names = manifest.class_names
    close = difflib.get_close_matches(class_name(class_folder.name), names, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Its {len(names)} classes: {', '.join(names[:10])}"
    more = ", …" if not close and len(names) > 10 else ""
    way_out = "" if close else " Rename the folder, or give the folder that holds the class folders."
    return f"{printable(str(class_folder))} is not a class of {manifest.name}/{manifest.version}. {hint}{more}{way_out}"


def _batches(files: list[tuple[Path, int]]) -> Iterator[list[tuple[Path, int]]]:
    for start in range(0, len(files), _BATCH_SIZE):
        yield files[start : start + _BATCH_SIZE]
