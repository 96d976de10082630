"""Splits images into training, validation and test: each class alike, by a seed, and saved with the run.

Source, Scan -> make_split -> Split -> <run>/split.json
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.store.publishing import write_atomically
from training.data.names import composed
from training.data.scan import Scan
from training.data.sources import Source
from training.data.split_folders import SplitName
from training.errors import DataError, RunError

SPLIT_NAMES: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """The indices of the images of each split.

    Attributes:
        train: the images that the network learns from, ascending.
        val: the images that choose the best epoch, ascending.
        test: the images of the test at the end, ascending.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]

    def __getitem__(self, name: SplitName) -> tuple[int, ...]:
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    def of_each(self, image_count: int) -> list[SplitName | None]:
        """Returns the split of each of the source's images; None for an image that is left out."""
        names: list[SplitName | None] = [None] * image_count
        for name in SPLIT_NAMES:
            for index in self[name]:
                names[index] = name
        return names


def make_split(source: Source, scan: Scan, *, val_fraction: float, test_fraction: float, seed: int) -> Split:
    """Splits the readable images, each class in the same proportions.

    Splits that the source has of its own are kept. A split that it lacks is taken from its training images. Copies of
    an image stay together, so that none is learned by heart and then tested.

    Args:
        source: the source of the images.
        scan: what the scan of the source found.
        val_fraction: the part of the images without a split that goes to validation.
        test_fraction: the part of the images without a split that goes to the test.
        seed: the seed of the draw.

    Raises:
        DataError: a class has too few images for one in each split that is made.
    """
    members: dict[SplitName, list[int]] = {name: [] for name in SPLIT_NAMES}
    undivided: dict[int, list[int]] = defaultdict(list)  # by class
    for index in scan.readable:
        given = source.given_split[index]
        if given in ("val", "test"):
            members[given].append(index)
        else:
            undivided[source.labels[index]].append(index)
    fractions: dict[SplitName, float] = {"val": val_fraction, "test": test_fraction}
    wanted = {name: fraction for name, fraction in fractions.items() if not members[name]}
    generator = np.random.default_rng(seed)
    for label in range(len(source.class_names)):
        groups: dict[str, list[int]] = defaultdict(list)
        for index in undivided[label]:
            groups[scan.hashes[index] or ""].append(index)
        shares = {name: max(1, round(fraction * len(groups))) for name, fraction in wanted.items()}
        if len(groups) <= sum(shares.values()):
            raise DataError(
                f"The class {source.class_names[label]!r} has {len(groups)} different readable images; a split into "
                f"train, {' and '.join(wanted) or 'nothing else'} needs at least {sum(shares.values()) + 1}. Add "
                "images, or remove the class."
            )
        order = [list(groups.values())[position] for position in generator.permutation(len(groups))]
        for name, share in shares.items():
            members[name] += [index for group in order[:share] for index in group]
            order = order[share:]
        members["train"] += [index for group in order for index in group]
    return Split(*(tuple(sorted(members[name])) for name in SPLIT_NAMES))


def save_split(split: Split, source: Source, path: Path) -> None:
    """Writes a split with the names of the images, so that it means the same when files are added to the folder.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    content: dict[str, object] = {"class_names": source.class_names}
    for name in SPLIT_NAMES:
        content[name] = [[source.identifier(index), source.class_names[source.labels[index]]] for index in split[name]]
    write_atomically(path, json.dumps(content, ensure_ascii=False, indent=0).encode())


def load_split(source: Source, path: Path) -> Split:
    """Reads a split that `save_split` wrote.

    Raises:
        RunError: an image of the split is not in the source any more, or is of another class now.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    names = [source.identifier(index) for index in range(len(source.labels))]
    # The folder on another system may code accents differently. A name that is there as it stands comes first.
    index_of = {composed(name): index for index, name in enumerate(names)} | {name: i for i, name in enumerate(names)}
    members: dict[SplitName, list[int]] = {name: [] for name in SPLIT_NAMES}
    for name in SPLIT_NAMES:
        for identifier, class_name in content[name]:
            index = index_of.get(identifier, index_of.get(composed(identifier)))
            if index is None or source.class_names[source.labels[index]] != composed(class_name):
                raise RunError(
                    f"{path} names {identifier} of class {class_name!r}, which is not in the data any more. "
                    "Put it back, or start a new run."
                )
            members[name].append(index)
    return Split(*(tuple(members[name]) for name in SPLIT_NAMES))
