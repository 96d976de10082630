"""An image that was saved again, resized or brightened is found in the other split; distinct images are not."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from tests.support.class_folders import write_patches
from tests.support.images import Pixels
from tests.support.training_runs import digits_config
from training.data.near_duplicates import near_duplicates, thumbnail
from training.data.prepared import prepare_data


@pytest.fixture
def tiles(photos: dict[str, Pixels]) -> list[Image.Image]:
    """Pieces of photos, 96 pixels wide, that do not overlap."""
    return [
        Image.fromarray(photo[top : top + 96, left : left + 96])
        for photo in photos.values()
        for top in range(0, photo.shape[0] - 95, 96)
        for left in range(0, photo.shape[1] - 95, 96)
    ]


def test_near_duplicates_across_splits_are_told_and_listed(tmp_path: Path, photos: dict[str, Pixels]) -> None:
    for name in ("cat", "coffee"):
        write_patches(tmp_path / "d" / "train" / name, photos[name], 10, seed=0, side=160)
        write_patches(tmp_path / "d" / "test" / name, photos[name], 2, seed=1, side=40)
    train, test = tmp_path / "d" / "train" / "cat", tmp_path / "d" / "test" / "cat"
    with Image.open(train / "000.jpg") as image:
        image.save(test / "again.jpg", quality=40)
        image.resize((90, 90)).save(test / "smaller.png")
    shutil.copy(train / "001.jpg", test / "copy.jpg")
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    config = digits_config(tmp_path, data=str(tmp_path / "d"), image_size=16, channels=3)
    data = prepare_data(config, run_folder)
    assert data.warnings[-2].startswith("1 images appear in more than one split")
    assert data.warnings[-1].startswith("2 validation and test images look nearly like an image of another split, such")
    assert "test/cat/again.jpg and train/cat/000.jpg" in data.warnings[-1]
    listed = json.loads((run_folder / "near_duplicates.json").read_text(encoding="utf-8"))
    assert {pair["image"]: pair["resembles"] for pair in listed if pair["split"] == "test"} == {
        "test/cat/again.jpg": "train/cat/000.jpg",
        "test/cat/smaller.png": "train/cat/000.jpg",
        "test/cat/copy.jpg": "train/cat/001.jpg",
    }


@pytest.mark.parametrize("change", ["grey", "brighter", "half", "duller"])
def test_changed_images_are_found(change: str, tiles: list[Image.Image]) -> None:
    def changed(image: Image.Image) -> Image.Image:
        match change:
            case "grey":
                return image.convert("L").convert("RGB")
            case "brighter":
                return ImageEnhance.Brightness(image).enhance(1.1)
            case "half":
                return image.resize((48, 48))
            case _:
                return ImageEnhance.Contrast(image).enhance(0.85)

    originals = np.stack([thumbnail(image) for image in tiles])
    clear = originals.reshape(len(tiles), -1).std(axis=1) > 20
    images = np.concatenate([originals[clear], np.stack([thumbnail(changed(image)) for image in tiles])[clear]])
    count = int(clear.sum())
    found = near_duplicates(images, ["train"] * count + ["test"] * count)
    right = [pair for pair in found if pair.index - count == pair.other]
    assert len(right) == len(found)
    assert len(found) >= 0.95 * count


def test_distinct_photos_raise_no_alarm(tiles: list[Image.Image]) -> None:
    images = np.stack([thumbnail(image) for image in tiles])
    for seed in range(5):
        splits = np.random.default_rng(seed).choice(["train", "val", "test"], len(tiles)).tolist()
        assert near_duplicates(images, splits) == []


def test_digits_raise_no_alarm(tmp_path: Path) -> None:
    data = prepare_data(digits_config(tmp_path))
    assert not any("look nearly" in warning for warning in data.warnings)
    assert not data.scan.thumbnails.any()


def test_plain_images_raise_no_alarm() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (40, 1, 1))
    noise = np.random.default_rng(1).integers(-3, 4, (40, 16, 16))
    images = np.clip(levels + noise, 0, 255).astype(np.uint8)
    assert near_duplicates(images, ["train", "test"] * 20) == []


def test_twenty_thousand_images_take_seconds() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20_000, 16, 16), dtype=np.uint8)
    images[-1] = images[0]
    start = time.process_time()
    found = near_duplicates(images, ["train"] * 16_000 + ["test"] * 4_000)
    assert [(pair.index, pair.other) for pair in found] == [(19_999, 0)]
    assert time.process_time() - start < 20
