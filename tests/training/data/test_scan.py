"""Every image is looked at before training; a damaged one is named by its path, and nothing stands in for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.class_folders import write_classes
from tests.support.images import Pixels
from tests.support.training_runs import digits_config
from training.data.prepared import prepare_data
from training.data.scan import duplicates, scan
from training.data.sources import folder_source
from training.errors import DataError


@pytest.fixture
def classes(tmp_path: Path, photos: dict[str, Pixels]) -> Path:
    return write_classes(tmp_path / "photos", {name: photos[name] for name in ("cat", "coffee")}, per_class=12)


def test_unreadable_files_are_listed_and_left_out(classes: Path, tmp_path: Path) -> None:
    whole = (classes / "cat" / "000.jpg").read_bytes()
    (classes / "cat" / "000.jpg").write_bytes(whole[: len(whole) // 2])
    (classes / "cat" / "notes.txt").write_text("not a photo")
    (classes / "coffee" / "empty.png").write_bytes(b"")
    source = folder_source(classes)
    found = scan(source, min_shorter_side=32)
    assert [item.path for item in found.unreadable] == ["cat/000.jpg", "cat/notes.txt", "coffee/empty.png"]
    assert found.class_counts == {"cat": 11, "coffee": 12}
    assert "3 files are unreadable and left out, such as cat/000.jpg" in " ".join(found.warnings())
    data = prepare_data(digits_config(tmp_path, data=str(classes), image_size=16, channels=3))
    used = [*data.split.train, *data.split.val, *data.split.test]
    assert len(used) == len(set(used)) == 23
    assert not {source.identifier(index) for index in used} & {item.path for item in found.unreadable}


def test_each_reason_is_told_with_its_count(classes: Path) -> None:
    jxl = b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100)
    for number in range(5):
        (classes / "cat" / f"IMG_{number}.jxl").write_bytes(jxl)
    (classes / "cat" / "0-empty.jpg").write_bytes(b"")
    (told,) = (text for text in scan(folder_source(classes), min_shorter_side=32).warnings() if "unreadable" in text)
    assert told.startswith("6 files are unreadable and left out, such as cat/IMG_0.jxl (one of 5): This is a JPEG XL")
    assert "cat/0-empty.jpg (one of 1): " in told


def test_photos_of_iphones_are_trained_on(classes: Path) -> None:
    photo = Path("tests/app/images/heic/plain.heic").read_bytes()
    for number in range(4):
        (classes / "cat" / f"IMG_{number}.HEIC").write_bytes(photo)
    found = scan(folder_source(classes), min_shorter_side=32)
    assert found.class_counts == {"cat": 16, "coffee": 12}
    assert not found.unreadable


def test_mixed_modes_are_all_readable(tmp_path: Path, small_cat: Pixels) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    image = Image.fromarray(small_cat)
    for number, mode in enumerate(("RGB", "L", "1", "P", "RGBA", "LA", "I;16")):
        saved = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else image
        (saved if mode == "I;16" else saved.convert(mode)).save(tmp_path / "a" / f"{number}.png")
    image.convert("CMYK").save(tmp_path / "b" / "cmyk.jpg")
    found = scan(folder_source(tmp_path), min_shorter_side=16)
    assert found.class_counts == {"a": 7, "b": 1}


def test_class_without_any_readable_image_is_an_error(classes: Path) -> None:
    for path in (classes / "cat").iterdir():
        path.write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"'cat' has no readable image \(cat/000.jpg: .*\). Replace its files"):
        scan(folder_source(classes), min_shorter_side=32)


def test_small_and_imbalanced_classes_are_told(classes: Path, photos: dict[str, Pixels]) -> None:
    for path in sorted((classes / "cat").iterdir())[1:]:
        path.unlink()
    warnings = " ".join(scan(folder_source(classes), min_shorter_side=32).warnings())
    assert "'cat' has only 1 readable images" in warnings
    assert "class_weights: balanced" in warnings


def test_copies_across_splits_and_classes_are_told(tmp_path: Path, photos: dict[str, Pixels]) -> None:
    names = {name: photos[name] for name in ("cat", "coffee")}
    write_classes(tmp_path / "train", names)
    (tmp_path / "test").mkdir()
    shutil.copytree(tmp_path / "train" / "cat", tmp_path / "test" / "cat")
    shutil.copy(tmp_path / "train" / "cat" / "000.jpg", tmp_path / "train" / "coffee" / "copy.jpg")
    source = folder_source(tmp_path)
    told = duplicates(source, scan(source, min_shorter_side=32), source.given_split)
    assert told[0].startswith("12 images appear in more than one split, such as train/cat/000.jpg")
    assert "1 images appear in more than one class" in told[1]
