"""`image-predictor predict` classifies files and folders without a server."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from app.__main__ import main
from tests.support.colours import COLOURS, MostlyColour, colour_image
from training.export.predictor import Predictor

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images in a folder and one below it, a file that is none, and a damaged one."""
    (tmp_path / "below").mkdir()
    (tmp_path / "red.png").write_bytes(colour_image("red"))
    (tmp_path / "below" / "GREEN.JPG").write_bytes(colour_image("green", image_format="JPEG"))
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "damaged.png").write_bytes(colour_image("blue")[:50])
    return tmp_path


Predict = Callable[..., tuple[int, str, str]]


@pytest.fixture
def predict(colours_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Predict:
    """Runs the command on the colour model; returns the exit status, standard output and standard error."""
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: object, store: Path = colours_store) -> tuple[int, str, str]:
        command = ["image-predictor", "predict", "--model", "colours", "--model-store", str(store)]
        monkeypatch.setattr(sys, "argv", [*command, *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            main()
        return int(exit_info.value.code or 0), *capsys.readouterr()

    return run


def test_folders_are_searched_and_a_bad_file_is_told_without_stopping_the_others(
    predict: Predict, folder: Path
) -> None:
    status, output, _ = predict(folder, "--json", "--top-k", 1)
    lines = [json.loads(line) for line in output.splitlines()]

    assert status == 1
    assert [Path(line["file"]).name for line in lines] == ["GREEN.JPG", "damaged.png", "red.png"]
    assert lines[0]["predictions"][0]["class_name"] == "green"
    assert lines[1]["error"]["code"] == "corrupt_image"
    assert lines[2]["predictions"][0]["class_name"] == "red"
    assert lines[2]["image"]["format"] == "PNG"


def test_table_shows_files_and_classes(predict: Predict, folder: Path) -> None:
    status, output, _ = predict(folder / "red.png")

    assert status == 0
    assert "red.png" in output
    assert all(colour in output for colour in COLOURS)


def test_missing_path_and_missing_model_are_explained(predict: Predict, tmp_path: Path) -> None:
    status, _, complaint = predict(tmp_path / "nothing.jpg")
    assert status == 2
    assert "nothing.jpg" in complaint

    (tmp_path / "red.png").write_bytes(colour_image("red"))
    status, _, complaint = predict(tmp_path / "red.png", store=tmp_path)
    assert status == 2
    assert "No model 'colours'" in complaint


def test_images_are_found_by_content_and_other_files_are_named(predict: Predict, folder: Path) -> None:
    (folder / "damaged.png").unlink()
    (folder / "saved.jfif").write_bytes(colour_image("blue", image_format="JPEG"))
    (folder / "no ending").write_bytes(colour_image("green"))
    (folder / "empty").touch()
    os.mkfifo(folder / "pipe.jpg")
    status, output, complaint = predict(folder, "--json", "--top-k", 1)
    lines = [json.loads(line) for line in output.splitlines()]

    assert status == 0
    assert {Path(line["file"]).name: line["predictions"][0]["class_name"] for line in lines} == {
        "GREEN.JPG": "green", "no ending": "green", "red.png": "red", "saved.jfif": "blue",
    }  # fmt: skip
    assert "notes.txt is not classified. This is a text, not an image." in complaint
    assert "pipe.jpg is not classified. This is no regular file." in complaint
    assert "empty is not classified. This is an empty file." in complaint


def test_photo_that_cannot_be_served_is_an_error_of_its_own(predict: Predict, folder: Path) -> None:
    (folder / "IMG_1.jxl").write_bytes(b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100))
    status, output, _ = predict(folder)

    assert status == 1
    assert "IMG_1.jxl" in output
    assert "JPEG XL" in output.split("unsupported_format", 1)[1]


def test_folder_without_images_says_so(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    status, output, complaint = predict(tmp_path / "none")

    assert (status, output) == (1, "")
    assert "There are no images in it." in complaint


def test_clutter_of_systems_and_storage_devices_is_passed_over(predict: Predict, tmp_path: Path) -> None:
    for name in ("red.png", "._red.png", "__MACOSX/red.png", ".hidden/red.png", "@eaDir/red.png", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(colour_image("red"))
    status, output, complaint = predict(tmp_path, "--json")

    assert (status, complaint) == (0, "")
    assert [json.loads(line)["file"] for line in output.splitlines()] == [str(tmp_path / "red.png")]


def test_links_are_followed_and_never_in_circles(predict: Predict, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "red.png").write_bytes(colour_image("red"))
    (tmp_path / "photos" / "circle").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "gone.png").symlink_to(tmp_path / "nothing")
    status, output, _ = predict(tmp_path / "photos", "--json")
    lines = [json.loads(line) for line in output.splitlines()]

    assert status == 1
    assert [Path(line["file"]).name for line in lines] == ["gone.png", "red.png"]
    assert lines[0]["error"]["code"] == "unreadable_file"


@pytest.mark.parametrize("name", ["[final].jpg", "x[/red]y.jpg", "[bold]a:smile:.png", "line\nbreak\x1b[2J.png"])
def test_names_of_files_are_shown_as_they_are(predict: Predict, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(colour_image("red"))
    path.with_name(f"broken {path.name}").write_bytes(colour_image("red")[:50])
    status, output, _ = predict(tmp_path)

    assert status == 1
    assert ascii(name)[1:-1] in output
    assert ascii(f"broken {path.name}")[1:-1] in output
    assert "\x1b[2J" not in output


def test_names_of_classes_are_shown_as_they_are(predict: Predict, tmp_path: Path) -> None:
    names = ["[red]x", "[/]", "c\td"]
    predictor = Predictor(MostlyColour(), names, image_size=16, resize_size=18, mean=[0.5] * 3, std=[0.25] * 3)
    torch.jit.script(predictor).save(str(tmp_path / "odd.pt"))  # type: ignore[no-untyped-call]
    (tmp_path / "red.png").write_bytes(colour_image("red"))
    status, output, _ = predict(tmp_path / "red.png", "--model", tmp_path / "odd.pt")

    assert status == 0
    assert all(name in output for name in ("[red]x", "[/]", "c\\td"))


def test_missing_path_does_not_stop_the_others(predict: Predict, folder: Path) -> None:
    status, output, _ = predict(folder / "nothing.jpg", folder / "red.png", "--json", "--top-k", 1)
    missing, red = (json.loads(line) for line in output.splitlines())

    assert status == 1
    assert (Path(missing["file"]).name, missing["error"]["code"]) == ("nothing.jpg", "unreadable_file")
    assert red["predictions"][0]["class_name"] == "red"


def test_hundred_files_are_answered_in_their_order(predict: Predict, tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number:03}.png").write_bytes(colour_image(list(COLOURS)[number % 3]))
    _, output, _ = predict(tmp_path, "--json", "--top-k", 1)
    named = [json.loads(line)["predictions"][0]["class_name"] for line in output.splitlines()]

    assert named == [list(COLOURS)[number % 3] for number in range(100)]
