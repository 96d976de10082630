"""Writes the report of a run: one HTML file that shows how good the model is, where it fails, and what it learned from.

run folder: history, scan, evaluation, predictions, weights -> figures as SVG -> report_template.html -> report.html
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from training.data.prepared import SCAN_FILE
from training.errors import NotDrawableError, RunError
from training.evaluation.calibration import reliability_bins
from training.evaluation.evaluate import Predictions, RunEvaluation, load_predictions
from training.evaluation.metrics import Metrics
from training.export.predictor import Predictor
from training.export.publish import run_predictor
from training.pictures.drawing import data_uri, picture_grid, to_svg
from training.pictures.figures import class_counts, confusion, curves, learning_rates, reliability
from training.pictures.visualize import cam_figure, filter_figure, map_figures
from training.runs.run_folder import RunFolder, read_json

REPORT_FILE = "report.html"
_TEMPLATE = "report_template.html"
_MAX_CONFUSIONS = 10
_MAX_MATRIX_CLASSES = 100
_CAM_IMAGES = 6


def write_report(run: RunFolder) -> Path:
    """Writes `report.html` into the folder of a run that was evaluated.

    Returns:
        the path of the report.

    Raises:
        RunError: the run was not evaluated, or its folder cannot be written.
    """
    evaluation, predictions = RunEvaluation.read(run), load_predictions(run)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["percent"] = lambda part, digits=1: (
        "-" if part is None else f"{100 * part:.{digits}f}\N{NO-BREAK SPACE}%"
    )
    html = environment.get_template(_TEMPLATE).render(
        run_name=run.path.name,
        config=run.config(),
        config_text=yaml.safe_dump(run.config().model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        environment=read_json(run.environment_file),
        evaluation=evaluation,
        test=evaluation.test,
        guess_nll=-math.log(evaluation.test.uniform_accuracy),
        scan=read_json(run.path / SCAN_FILE),
        confusions=_confusions(evaluation.test),
        mistakes=_mistakes(evaluation.test, predictions),
        **_history(run),
        **_result_figures(evaluation, predictions, run),
        **_insights(run_predictor(run, temperature=evaluation.calibration.temperature), predictions, run),
    )
    path = run.path / REPORT_FILE
    try:
        path.write_text(html, encoding="utf-8", errors="backslashreplace")  # names may hold any bytes
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}. Make room, or make it writable.") from error
    return path


def _history(run: RunFolder) -> dict[str, Any]:
    """Returns the curves, the learning rate, and a sentence on what the curves say."""
    epochs = [json.loads(line) for line in run.history_file.read_text(encoding="utf-8").splitlines()]
    if not epochs:
        return {"loss_curve": None, "accuracy_curve": None, "rate_curve": None, "diagnosis": None, "epochs": epochs}
    numbers = [epoch["epoch"] for epoch in epochs]
    best = max(epochs, key=lambda epoch: (epoch["val_accuracy"], -epoch["val_loss"]))
    if run.config().monitor == "val_loss":
        best = min(epochs, key=lambda epoch: epoch["val_loss"])

    def curve(name: str, *, percent: bool) -> Markup:
        series = {kind: [epoch[f"{short}_{name}"] for epoch in epochs] for kind, short in _SERIES}
        return _svg(curves(numbers, series, title=name, best_epoch=best["epoch"], percent=percent))

    rates = learning_rates(numbers, [epoch["learning_rate"] for epoch in epochs], x_label="epoch")
    return {
        "epochs": epochs,
        "loss_curve": curve("loss", percent=False),
        "accuracy_curve": curve("accuracy", percent=True),
        "rate_curve": _svg(rates),
        "diagnosis": diagnose(epochs, best),
    }


_SERIES = (("training", "train"), ("validation", "val"))


def diagnose(epochs: list[dict[str, Any]], best: dict[str, Any]) -> str:
    """Returns what the curves say about over- and underfitting, as a person would read them.

    Training accuracy may be below validation accuracy: only training images are augmented and pass through dropout.

    Args:
        epochs: the lines of `history.jsonl`, one for each epoch.
        best: the line of the best epoch.
    """
    last = epochs[-1]
    gap = best["train_accuracy"] - best["val_accuracy"]
    if len(epochs) > 3 and last["val_loss"] > 1.25 * best["val_loss"] and last["train_loss"] < best["train_loss"]:
        return (
            "Overfitting towards the end: the training loss still falls while the validation loss rises. The weights "
            "of the best epoch are kept. Stronger augmentation, more dropout or weight decay, or more images help."
        )
    if gap > 0.1:
        return (
            f"Overfitting: at the best epoch training accuracy is {100 * gap:.0f} points above validation. Stronger "
            "augmentation, more dropout or weight decay, a smaller network, or more images help."
        )
    if best is last and len(epochs) > 1 and best["val_loss"] < 0.98 * epochs[-2]["val_loss"]:
        return "Not finished: the last epoch is the best, and the validation loss still falls. Train for more epochs."
    if best["train_accuracy"] < 0.8 and best["val_accuracy"] < 0.8:
        return (
            "Underfitting: even the training images are not learned. A higher learning rate, more epochs, a larger or "
            "a pretrained network, or less augmentation help."
        )
    return "Neither over- nor underfitting stands out."


def _result_figures(evaluation: RunEvaluation, predictions: Predictions, run: RunFolder) -> dict[str, Any]:
    test = evaluation.test
    names = [row.class_name for row in test.classes]
    matrix = _svg(confusion(test.confusion_matrix, names)) if len(names) <= _MAX_MATRIX_CLASSES else None
    return {
        "confusion_matrix": matrix,
        "reliability_diagram": _svg(reliability(reliability_bins(predictions.probabilities, predictions.labels))),
        "count_bars": _svg(class_counts(read_json(run.path / SCAN_FILE)["class_counts"])),
    }


def _insights(predictor: Predictor, predictions: Predictions, run: RunFolder) -> dict[str, Any]:
    """Returns filters, feature maps and Grad-CAM; those that the network has nothing to draw for are None or empty."""
    examples = predictions.example_images[:_CAM_IMAGES]
    wrong = predictions.mistake_images[:_CAM_IMAGES]

    def or_none(draw: Callable[[], Figure]) -> Markup | None:
        try:
            return _svg(draw())
        except NotDrawableError:
            return None

    try:
        maps = [(title, _svg(figure)) for title, figure in map_figures(predictor, examples[0])]
    except NotDrawableError:
        maps = []
    return {
        "filters": or_none(lambda: filter_figure(predictor)),
        "feature_maps": maps,
        "example_image": _svg(picture_grid([examples[0].permute(1, 2, 0)], side=1.6)),
        "cam_right": or_none(lambda: cam_figure(predictor, examples)),
        "cam_wrong": or_none(lambda: cam_figure(predictor, wrong)) if len(wrong) else None,
    }


def _confusions(test: Metrics) -> list[tuple[int, str, str]]:
    """Returns the most frequent mistakes: how many there are, the label and the prediction."""
    names = [row.class_name for row in test.classes]
    pairs = [
        (count, names[label], names[prediction])
        for label, row in enumerate(test.confusion_matrix)
        for prediction, count in enumerate(row)
        if count and label != prediction
    ]
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2]))[:_MAX_CONFUSIONS]


def _mistakes(test: Metrics, predictions: Predictions) -> list[dict[str, Any]]:
    names = [row.class_name for row in test.classes]
    rows = []
    for position, image in zip(predictions.mistakes.tolist(), predictions.mistake_images, strict=True):
        confidence, prediction = predictions.probabilities[position].max(dim=0)
        label = int(predictions.labels[position])
        rows.append(
            {
                "picture": data_uri(image),
                "identifier": predictions.identifiers[position],
                "predicted": names[int(prediction)],
                "confidence": float(confidence),
                "label": names[label],
                "label_probability": float(predictions.probabilities[position, label]),
            }
        )
    return rows


def _svg(figure: Figure) -> Markup:
    return Markup(to_svg(figure))  # our own SVG; matplotlib escapes the names in it
