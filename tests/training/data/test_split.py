"""The split is stratified and seeded, keeps copies together, and is the same when it is read back."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.support.class_folders import write_classes, write_patches
from tests.support.images import Pixels
from training.data.scan import scan
from training.data.sources import digits_source, folder_source
from training.data.split import load_split, make_split, save_split
from training.errors import DataError, RunError


def test_each_class_is_split_in_the_same_proportions() -> None:
    source = digits_source()
    found = scan(source, min_shorter_side=8)
    split = make_split(source, found, val_fraction=0.2, test_fraction=0.1, seed=0)
    totals = Counter(source.labels)
    for name, fraction in (("val", 0.2), ("test", 0.1)):
        counts = Counter(source.labels[index] for index in split[name])  # type: ignore[index]
        assert all(abs(counts[label] - fraction * total) <= 1 for label, total in totals.items())
    assert sorted(split.train + split.val + split.test) == list(range(len(source.labels)))


def test_seed_decides_the_split() -> None:
    source = digits_source()
    found = scan(source, min_shorter_side=8)
    first, again, other = (
        make_split(source, found, val_fraction=0.2, test_fraction=0.1, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.test != other.test


def test_copies_stay_on_one_side(tmp_path: Path, photos: dict[str, Pixels]) -> None:
    write_classes(tmp_path, {name: photos[name] for name in ("cat", "coffee")}, per_class=10)
    for path in list(tmp_path.rglob("*.jpg")):
        shutil.copy(path, path.with_stem(f"{path.stem}-copy"))
    source = folder_source(tmp_path)
    found = scan(source, min_shorter_side=32)
    split = make_split(source, found, val_fraction=0.2, test_fraction=0.2, seed=0)
    names = split.of_each(len(source.labels))
    sides = {(digest, names[index]) for index, digest in enumerate(found.hashes)}
    assert len(sides) == 20


def test_splits_of_the_data_are_kept(tmp_path: Path, cat: Pixels, photos: dict[str, Pixels]) -> None:
    for number, (split_name, count) in enumerate({"train": 8, "val": 3, "test": 2}.items()):
        for name in ("cat", "coffee"):
            write_patches(tmp_path / split_name / name, photos[name], count, seed=number)
    source = folder_source(tmp_path)
    split = make_split(source, scan(source, min_shorter_side=32), val_fraction=0.5, test_fraction=0.4, seed=0)
    assert (len(split.train), len(split.val), len(split.test)) == (16, 6, 4)


def test_class_too_small_to_split_is_named(tmp_path: Path, photos: dict[str, Pixels]) -> None:
    write_classes(tmp_path, {"cat": photos["cat"]}, per_class=12)
    write_classes(tmp_path, {"coffee": photos["coffee"]}, per_class=1)
    source = folder_source(tmp_path)
    with pytest.raises(DataError, match=r"'coffee' has 1 different readable images; .* needs at least 3"):
        make_split(source, scan(source, min_shorter_side=32), val_fraction=0.1, test_fraction=0.1, seed=0)


def test_split_survives_new_files_and_tells_missing_ones(tmp_path: Path, photos: dict[str, Pixels]) -> None:
    folder = write_classes(tmp_path / "photos", {name: photos[name] for name in ("cat", "coffee")}, per_class=10)
    source = folder_source(folder)
    split = make_split(source, scan(source, min_shorter_side=32), val_fraction=0.2, test_fraction=0.2, seed=0)
    save_split(split, source, tmp_path / "split.json")
    shutil.copy(folder / "cat" / "001.jpg", folder / "cat" / "000-new.jpg")
    grown = folder_source(folder)
    loaded = load_split(grown, tmp_path / "split.json")
    assert [grown.identifier(index) for index in loaded.test] == [source.identifier(index) for index in split.test]
    (folder / source.identifier(split.val[0])).unlink()
    with pytest.raises(RunError, match="which is not in the data any more"):
        load_split(folder_source(folder), tmp_path / "split.json")
