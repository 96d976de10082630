"""`image-predictor predict` classifies files and folders without a server."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.__main__ import main
from tests.support.colours import COLOURS, colour_image


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


def test_hundred_files_are_answered_in_their_order(predict: Predict, tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number:03}.png").write_bytes(colour_image(list(COLOURS)[number % 3]))
    _, output, _ = predict(tmp_path, "--json", "--top-k", 1)
    named = [json.loads(line)["predictions"][0]["class_name"] for line in output.splitlines()]

    assert named == [list(COLOURS)[number % 3] for number in range(100)]
