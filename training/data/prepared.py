"""Prepares the data of a run: opens, scans and splits the images.

config -> open_source -> scan -> make_split, or the split of a resumed run -> PreparedData -> stores for training and
          validation, batches for evaluation, statistics
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from app.images.decode import MIN_DETAIL
from app.store.publishing import write_atomically
from training.config.groups import DataSettings
from training.config.settings import TrainConfig
from training.data.near_duplicates import NearDuplicate, near_duplicates
from training.data.pixel_store import PixelStore
from training.data.scan import Scan, duplicates, near_duplicates_told, scan
from training.data.sources import Source, open_source
from training.data.split import SPLIT_NAMES, Split, load_split, make_split, save_split
from training.data.split_folders import SplitName
from training.data.statistics import Statistics, channel_statistics
from training.errors import DataError

SPLIT_FILE = "split.json"
SCAN_FILE = "scan.json"
NEAR_DUPLICATES_FILE = "near_duplicates.json"
_STATISTICS_BATCH = 256

EvaluationBatch = tuple[torch.Tensor, torch.Tensor, list[str]]
"""Images as `Predictor.resize_and_crop` gives them, uint8 `(B, 3, S, S)`; labels, int64 `(B,)`; B identifiers."""


@dataclass(frozen=True)
class PreparedData:
    """The images of a run, scanned and split.

    Attributes:
        settings: the settings of the data.
        source: the source of the images.
        scan: what the scan of the source found.
        split: the indices of the images of each split.
        warnings: a sentence for each thing that will harm the training.
        stores: the stores that were made so far, by split, so that several trainings share the pixels.
    """

    settings: DataSettings
    source: Source
    scan: Scan
    split: Split
    warnings: tuple[str, ...]
    stores: dict[SplitName, PixelStore] = field(default_factory=dict, repr=False, compare=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the C classes, in the order of the logits."""
        return self.source.class_names

    def labels(self, name: SplitName) -> torch.Tensor:
        """Returns the class of each image of a split, int64 `(N,)`."""
        return torch.tensor([self.source.labels[index] for index in self.split[name]], dtype=torch.int64)

    def training_store(self) -> PixelStore:
        """Returns the training split as squares with the side of the resize, which leave room for random crops."""
        if "train" not in self.stores:
            side = self.settings.shorter_side
            self.stores["train"] = self._store("train", side, self.settings.channels, in_memory=self._fits())
        return self.stores["train"]

    def validation_store(self) -> PixelStore:
        """Returns the validation split as the network will see it when it serves."""
        if "val" not in self.stores:
            side = self.settings.image_size
            self.stores["val"] = self._store("val", side, self.settings.channels, in_memory=self._fits())
        return self.stores["val"]

    def evaluation_batches(self, name: SplitName, batch_size: int = 64) -> Iterator[EvaluationBatch]:
        """Yields every image of a split once, in order, as the service would prepare it."""
        store = self._store(name, self.settings.image_size, 3, in_memory=False)
        order = list(torch.split(torch.arange(len(store)), batch_size))
        batches = store.batches(order, workers=self.settings.workers if len(store) > 4 * batch_size else 0)
        for positions, (images, labels) in zip(order, batches, strict=True):
            yield images, labels, [self.source.identifier(store.indices[position]) for position in positions.tolist()]

    def training_statistics(self, store: PixelStore) -> Statistics:
        """Computes mean and std of the training split."""
        order = list(torch.split(torch.arange(len(store)), _STATISTICS_BATCH))
        return channel_statistics(images for images, _ in store.batches(order, workers=self.settings.workers))

    def _store(self, name: SplitName, image_size: int, channels: int, *, in_memory: bool) -> PixelStore:
        resize_size = image_size if name == "train" else self.settings.shorter_side
        return PixelStore(
            self.source,
            self.split[name],
            resize_size=resize_size,
            image_size=image_size,
            channels=channels,
            in_memory=in_memory,
        )

    def _fits(self) -> bool:
        if self.settings.cache != "auto":
            return self.settings.cache == "memory"
        pixels = (
            len(self.split.train) * self.settings.shorter_side**2 + len(self.split.val) * self.settings.image_size**2
        )
        return pixels * self.settings.channels <= self.settings.cache_limit_mb * 1_000_000


def prepare_data(config: TrainConfig, run_folder: Path | None = None) -> PreparedData:
    """Opens, scans and splits a run's images.

    Args:
        config: the configuration of the run.
        run_folder: the folder into which `split.json`, `scan.json` and `near_duplicates.json` are written, and whose
            `split.json` is used if there is one; None writes nothing.

    Raises:
        DataError: the data cannot be trained on.
        RunError: the split of the run does not fit the data any more.
        OSError: the run's folder cannot be written.
    """
    source = open_source(config.data, download_folder=config.download_folder)
    found = scan(source, min_shorter_side=MIN_DETAIL * config.shorter_side)
    split_path = run_folder / SPLIT_FILE if run_folder is not None else None
    if split_path is not None and split_path.is_file():
        split = load_split(source, split_path)
    else:
        split = make_split(
            source, found, val_fraction=config.val_fraction, test_fraction=config.test_fraction, seed=config.seed
        )
    split_of = split.of_each(len(source.labels))
    alike = near_duplicates(found.thumbnails, split_of)
    warnings = [
        *source.notes,
        *found.warnings(),
        *duplicates(source, found, split_of),
        *near_duplicates_told(source, found, alike),
    ]
    for name in SPLIT_NAMES:
        missing = set(range(len(source.class_names))) - {source.labels[index] for index in split[name]}
        if missing and name == "train":
            raise DataError(f"The class {source.class_names[min(missing)]!r} has no training image.")
        if missing:
            warnings.append(f"The {name} split has no image of {source.class_names[min(missing)]!r}.")
    if split_path is not None and run_folder is not None and not split_path.is_file():
        content = {**found.to_json(), "warnings": warnings, "split": {name: len(split[name]) for name in SPLIT_NAMES}}
        write_atomically(run_folder / SCAN_FILE, json.dumps(content, ensure_ascii=False, indent=2).encode())
        pairs = [_describe_pair(pair, source, split_of) for pair in alike]
        write_atomically(run_folder / NEAR_DUPLICATES_FILE, json.dumps(pairs, ensure_ascii=False, indent=2).encode())
        save_split(split, source, split_path)
    return PreparedData(config, source, found, split, tuple(warnings))


def _describe_pair(pair: NearDuplicate, source: Source, split_of: Sequence[SplitName | None]) -> dict[str, Any]:
    return {
        "image": source.identifier(pair.index),
        "split": split_of[pair.index],
        "resembles": source.identifier(pair.other),
        "split_of_that": split_of[pair.other],
        "similarity": round(pair.similarity, 4),
    }
