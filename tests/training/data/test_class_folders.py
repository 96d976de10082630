"""Folders are taken as a person means them: splits by any usual name, classes by name, and nothing left out unsaid."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support.class_folders import write_patches
from tests.support.images import Pixels
from tests.support.training_runs import digits_config
from training.data.class_folders import list_class_folders
from training.data.prepared import prepare_data
from training.data.sources import folder_source
from training.errors import DataError


def _write(root: Path, folders: Iterable[str], photo: Pixels, *, count: int = 8) -> Path:
    for seed, folder in enumerate(folders):
        write_patches(root / folder, photo, count, seed=seed)
    return root


def _prepare(data: Path, tmp_path: Path) -> dict[str, Any]:
    """Returns what the run's folder says of the data."""
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    prepare_data(digits_config(tmp_path, data=str(data), image_size=16, channels=3), run_folder)
    content: dict[str, Any] = json.loads((run_folder / "scan.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Train", "Val", "Test"),
        ("Training", "Validation", "Testing"),
        ("TRAIN", "VALID", "TEST"),
        ("training_set", "dev", "test_set"),
        ("seg_train", "seg_val", "seg_test"),
        ("asl_alphabet_train", "asl_alphabet_dev", "asl_alphabet_test"),
        ("TrainImages", "ValImages", "TestImages"),
        ("trainset", "valset", "testset"),
        ("train2017", "val2017", "test2017"),
        ("images-train", "images-validation", "images-testing"),
        ("Train Data", "Validation Data", "Test Data"),
    ],
)
def test_split_folders_of_any_usual_name_are_splits(
    train: str, val: str, test: str, tmp_path: Path, cat: Pixels
) -> None:
    names = [f"{split}/{name}" for split in (train, val, test) for name in ("cat", "dog")]
    scanned = _prepare(_write(tmp_path / "d", names, cat, count=3), tmp_path)
    assert scanned["class_counts"] == {"cat": 9, "dog": 9}
    assert scanned["split"] == {"train": 6, "val": 6, "test": 6}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["train/a", "train/b", "Training/a", "Training/b"], "several folders that are named as the same split"),
        (["train/a", "train/b", "val/a", "valid/a"], "several folders that are named as the same split"),
        (["train/a", "train/b", "test/a", "x_train/a", "x_test/a"], "several folders that are named as the same split"),
        (["Train", "Test"], "Train has no folder per class"),
        (["training", "validation"], "training has no folder per class"),
        (["Training", "cat", "dog"], "Training has no folder per class"),
        (["Val", "Test"], "named as a split, but no training folder"),
        (["cat", "dog", "test"], "rename it if it is a class"),
        (["cat/train", "cat/test", "dog/train", "dog/test"], "Splits come first, then classes: train/cat/"),
        (["images/train/a", "images/val/a", "labels/train/a"], "If images is the whole data set, give that folder"),
        (["archive/cat", "archive/dog"], r"If the class folders are in .*archive, give that folder"),
    ],
)
def test_folders_that_could_be_splits_or_classes_are_refused(
    folders: list[str], expected: str, tmp_path: Path, cat: Pixels
) -> None:
    with pytest.raises(DataError, match=expected):
        folder_source(_write(tmp_path / "d", folders, cat, count=1))


@pytest.mark.parametrize(
    "folders",
    [["train_station", "bus_station"], ["test_tube", "flask"], ["train", "bus", "car"], ["steam_train", "test_car"]],
)
def test_classes_may_speak_of_trains_and_tests(folders: list[str], tmp_path: Path, cat: Pixels) -> None:
    source = folder_source(_write(tmp_path / "d", folders, cat, count=1))
    assert source.class_names == tuple(sorted(folders))
    assert set(source.given_split) == {None}


def test_split_that_was_unpacked_into_itself_is_found_and_told(tmp_path: Path, cat: Pixels) -> None:
    names = [f"seg_{split}/seg_{split}/{name}" for split in ("train", "test") for name in ("cat", "dog")]
    data = _write(tmp_path / "d", [*names, "seg_pred/seg_pred"], cat)
    scanned = _prepare(data, tmp_path)
    assert scanned["class_counts"] == {"cat": 16, "dog": 16}
    told = " ".join(scanned["warnings"])
    assert "The train split is taken from seg_train/seg_train, one folder deeper." in told
    assert "8 files left out, such as seg_pred: not in a class folder." in told


def test_flat_test_folder_is_told(tmp_path: Path, cat: Pixels) -> None:
    data = _write(tmp_path / "d", ["train/cat", "train/dog", "test"], cat, count=10)
    scanned = _prepare(data, tmp_path)
    assert scanned["warnings"][0] == (
        "test has no class folders: its 10 files have no labels and are left out, and the test split is taken from the "
        "training images."
    )
    assert scanned["image_count"] == 20
    assert scanned["split"]["test"] == 4


def test_files_beside_class_folders_are_counted(tmp_path: Path, cat: Pixels) -> None:
    data = _write(tmp_path / "d", ["train/cat", "train/dog", "test/cat", "extra/deep"], cat, count=6)
    (data / "labels.csv").write_text("a,b")
    write_patches(data / "train", cat, 2, seed=9)
    notes = folder_source(data).notes
    assert "9 files left out, such as extra: not in a class folder." in notes


def test_folders_within_class_folders_count_as_the_class_and_are_told(tmp_path: Path, cat: Pixels) -> None:
    data = _write(tmp_path / "d", ["north/cat", "north/dog", "south/cat", "south/dog"], cat, count=2)
    source = folder_source(data)
    assert source.class_names == ("north", "south")
    assert source.notes == (
        "8 of 8 files lie in a folder inside their class folder, such as north/cat; they count as the class. Each "
        "class has folders named cat, dog: if those are the classes, move them up.",
    )


def test_what_systems_and_storage_devices_leave_is_passed_over_and_counted(tmp_path: Path, cat: Pixels) -> None:
    data = _write(tmp_path / "d", ["cat", "dog"], cat, count=8)
    for name in ("cat", "dog"):
        for photo in sorted((data / name).iterdir()):
            for size in ("M", "XL"):
                thumbnail = data / name / "@eaDir" / photo.name / f"SYNOPHOTO_THUMB_{size}.jpg"
                thumbnail.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(photo, thumbnail)
    photo = data / "cat" / "000.jpg"
    for clutter in ("__MACOSX/cat/._000.jpg", "#recycle/old.jpg", "@eaDir/x.jpg", ".git/a.jpg", "$RECYCLE.BIN/b.jpg",
                    "cat/._000.jpg", "cat/.DS_Store", "cat/Thumbs.db", "cat/THUMBS.DB", "cat/Desktop.ini",
                    "cat/.AppleDouble/000.jpg", "cat/.@__thumb/s800000.jpg", "dog/#recycle/1.jpg"):  # fmt: skip
        (data / clutter).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, data / clutter)
    scanned = _prepare(data, tmp_path)
    assert scanned["class_counts"] == {"cat": 8, "dog": 8}
    assert scanned["unreadable"] == []
    (told,) = (warning for warning in scanned["warnings"] if "left out" in warning)
    assert told.startswith("45 files left out, such as ")
    assert told.endswith(": hidden, or left there by a system or a storage device.")


def test_links_are_followed_or_counted(tmp_path: Path, cat: Pixels) -> None:
    data = _write(tmp_path / "d", ["cat", "dog"], cat, count=8)
    write_patches(tmp_path / "elsewhere" / "deep", cat, 20, seed=9)
    (data / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (data / "cat" / "again").symlink_to(tmp_path / "elsewhere" / "deep")
    (data / "cat" / "up").symlink_to(data)
    (data / "cat" / "top").symlink_to("/")
    (data / "dog" / "itself.jpg").symlink_to("itself.jpg")
    for number in range(9):
        (data / "dog" / f"annexed-{number}.jpg").symlink_to(f".git/annex/objects/{number}")
    os.mkfifo(data / "dog" / "pipe.jpg")
    scanned = _prepare(data, tmp_path)
    assert scanned["class_counts"] == {"cat": 28, "dog": 8}
    told = " ".join(scanned["warnings"])
    assert "20 of 36 files lie in a folder inside their class folder" in told
    assert "10 files left out, such as dog/annexed-0.jpg: a link to something that is not there" in told
    assert "3 files left out, such as cat/top: a link to a folder that is listed already" in told
    assert "1 file left out, such as dog/pipe.jpg: not a regular file" in told


def test_class_of_dangling_links_alone_says_why_it_is_empty(tmp_path: Path, cat: Pixels) -> None:
    data = _write(tmp_path / "d", ["cat", "dog"], cat, count=1)
    (data / "ant").mkdir()
    (data / "ant" / "1.jpg").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"ant is empty.* 1 file left out, such as ant/1.jpg: a link to something"):
        list_class_folders(data)


def test_names_are_compared_in_composed_form(tmp_path: Path, cat: Pixels) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    data = _write(tmp_path / "d", [f"train/{composed}", "train/dog", f"test/{decomposed}", "test/dog"], cat, count=4)
    scanned = _prepare(data, tmp_path)
    assert scanned["class_counts"] == {composed: 8, "dog": 8}
    assert scanned["split"]["test"] == 8


def test_class_that_is_there_in_both_forms_is_one_and_told(tmp_path: Path, cat: Pixels) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    source = folder_source(_write(tmp_path / "d", [composed, decomposed, "dog"], cat, count=2))
    assert source.class_names == (composed, "dog")
    assert list(source.labels) == [0, 0, 0, 0, 1, 1]
    assert "has 2 folders that are named 'café', with the accents coded differently" in source.notes[0]
