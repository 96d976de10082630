"""The report is one page that fetches nothing, shows every part, and says what the curves mean."""

from __future__ import annotations

import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from torch import nn

from training.errors import RunError
from training.evaluation.evaluate import PREDICTIONS_FILE, RunEvaluation, load_predictions, save_predictions
from training.export.predictor import Predictor
from training.pictures.report import REPORT_FILE, diagnose, write_report
from training.runs.run_folder import RunFolder


class Addresses(HTMLParser):
    """Collects all that a browser would fetch, and checks that elements are closed."""

    VOID = frozenset({"meta", "img", "br", "link", "path", "use", "rect", "image", "stop"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "action") and value is not None:
                self.found.append(value)
            if name == "id" and value is not None:
                self.ids.append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def _parse(html: str) -> Addresses:
    parser = Addresses()
    parser.feed(html)
    assert parser.open == []
    return parser


def test_report_fetches_nothing(digits_run: RunFolder) -> None:
    html = (digits_run.path / REPORT_FILE).read_text(encoding="utf-8")
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in _parse(html).found)
    assert "<script" not in html
    assert "@import" not in html
    assert "url(http" not in html


def test_report_shows_every_part(digits_run: RunFolder) -> None:
    html = (digits_run.path / REPORT_FILE).read_text(encoding="utf-8")
    test = RunEvaluation.read(digits_run).test
    assert f"{100 * test.accuracy:.1f}\N{NO-BREAK SPACE}%" in html
    assert f"{100 * test.accuracy_interval[0]:.1f}\N{NO-BREAK SPACE}%" in html
    for part in (
        "Loss", "Accuracy", "Learning rate", "Confusion matrix", "Reliability", "Class by class", "Grad-CAM",
        "Most confident mistakes", "Filters of the first convolution", "The first layers at work",
        "Images of each class",
        "architecture: simple-cnn", "git commit",
    ):  # fmt: skip
        assert part in html, part
    assert html.count('class="mistake ') == len(load_predictions(digits_run).mistakes)


def test_report_survives_hostile_names(digits_run: RunFolder, tmp_path: Path) -> None:
    name = "<script>alert('$x$')</script>"
    run = RunFolder(tmp_path / "run")
    shutil.copytree(digits_run.path, run.path)
    evaluation = RunEvaluation.read(run)
    first = evaluation.test.classes[0].model_copy(update={"class_name": name})
    test = evaluation.test.model_copy(update={"classes": (first, *evaluation.test.classes[1:]), "majority_class": name})
    changed = evaluation.model_copy(update={"test": test})
    (run.path / "evaluation.json").write_text(changed.model_dump_json(), encoding="utf-8")
    html = write_report(run).read_text(encoding="utf-8")
    assert "<script" not in html
    _parse(html)


def test_report_without_mistakes_convolutions_and_epochs_is_whole(
    digits_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(digits_run.path, run.path)
    run.history_file.write_text("")
    predictions = load_predictions(run)
    mistakes, images = predictions.mistakes[:0], predictions.mistake_images[:0]
    save_predictions(replace(predictions, mistakes=mistakes, mistake_images=images), run.path / PREDICTIONS_FILE)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    names = [row.class_name for row in RunEvaluation.read(run).test.classes]
    predictor = Predictor(linear, names, image_size=16, mean=[0.5], std=[0.5])
    monkeypatch.setattr("training.pictures.report.run_predictor", lambda _run, temperature: predictor)
    html = write_report(run).read_text(encoding="utf-8")
    _parse(html)
    for sentence in ("every test image is classified rightly", "has no convolutions", "No epoch was completed"):
        assert sentence in html


def test_report_needs_an_evaluation(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="Has the run ended"):
        write_report(RunFolder(tmp_path))


def _epoch(train_loss: float, val_loss: float, train_accuracy: float, val_accuracy: float) -> dict[str, float]:
    names = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    return dict(zip(names, (train_loss, val_loss, train_accuracy, val_accuracy), strict=True))


def test_diagnosis_tells_overfitting_underfitting_and_unfinished_training_apart() -> None:
    turning = [_epoch(1.0, 1.0, 0.6, 0.6), _epoch(0.6, 0.7, 0.8, 0.78)]
    rising = [_epoch(0.2, 0.9, 0.95, 0.76), _epoch(0.1, 1.2, 0.99, 0.75)]
    assert diagnose(turning + rising, turning[1]).startswith("Overfitting towards the end")
    gap = [_epoch(0.05, 0.9, 1.0, 0.7)]
    assert diagnose(gap, gap[0]).startswith("Overfitting: at the best epoch training accuracy is 30 points")
    low = [_epoch(2.0, 2.0, 0.3, 0.3), _epoch(1.99, 1.99, 0.31, 0.31)]
    assert diagnose(low, low[1]).startswith("Underfitting")
    assert diagnose(turning, turning[1]).startswith("Not finished")
    good = [_epoch(0.1, 0.11, 0.97, 0.96), _epoch(0.1, 0.11, 0.97, 0.965)]
    assert diagnose(good, good[1]).startswith("Neither")
