"""Tests a trained run once: calibrates its model on the validation split and measures it on the test split.

best weights -> validation logits -> temperature -> Predictor -> test probabilities -> Metrics
             -> <run>/evaluation.json, predictions.npz -> report, manifest
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn
from torch.nn import functional

from app.store.publishing import open_atomically, write_atomically
from training.data.prepared import EvaluationBatch, PreparedData, prepare_data
from training.errors import RunError
from training.evaluation.calibration import Calibration, fit_temperature
from training.evaluation.metrics import Metrics, measure
from training.export.predictor import Predictor
from training.export.publish import CheckpointName, run_predictor
from training.runs.run_folder import RunFolder

EVALUATION_FILE = "evaluation.json"
PREDICTIONS_FILE = "predictions.npz"
MAX_MISTAKES = 24
"""How many of the most confident mistakes are kept as pictures."""

MAX_EXAMPLES = 12
"""Of how many classes an example is kept as a picture."""


class RunEvaluation(BaseModel):
    """The content of `evaluation.json`."""

    model_config = ConfigDict(frozen=True)

    checkpoint: CheckpointName
    calibration: Calibration
    validation_accuracy: float
    test: Metrics = Field(description="The figures of the calibrated model, which is published, on the test split")
    uncalibrated_test_nll: float
    uncalibrated_test_ece: float

    @classmethod
    def read(cls, run: RunFolder) -> RunEvaluation:
        """Reads the evaluation of a run.

        Raises:
            RunError: the run has no evaluation, or its file is not valid.
        """
        path = run.path / EVALUATION_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror}. Has the run ended?") from error
        except ValidationError as error:
            raise RunError(f"{path} is not valid: {error.errors()[0]['msg']}.") from error

    def manifest_metrics(self) -> dict[str, float]:
        """Returns the figures for the manifest, by name."""
        test = self.test
        figures = {
            "test_accuracy": test.accuracy,
            "test_accuracy_low": test.accuracy_interval[0],
            "test_accuracy_high": test.accuracy_interval[1],
            "test_macro_f1": test.macro_f1,
            "test_nll": test.nll,
            "test_ece": test.ece,
            "test_images": float(test.image_count),
            "test_majority_accuracy": test.majority_accuracy,
            "validation_accuracy": self.validation_accuracy,
        }
        return figures if test.top5_accuracy is None else {**figures, "test_top5_accuracy": test.top5_accuracy}


@dataclass(frozen=True)
class Predictions:
    """What the model predicts for each image of a split.

    Attributes:
        probabilities: the probabilities of each image, float32 `(N, C)`.
        logits: the logits of each image before the temperature, float32 `(N, C)`.
        labels: the class of each image, int64 `(N,)`.
        identifiers: what the source calls each image, such as the path of its file.
        mistakes: the positions of the most confident mistakes, the most confident first, int64 `(K,)`; K is at most
            `MAX_MISTAKES`.
        mistake_images: the images of these mistakes, uint8 `(K, 3, S, S)`.
        example_images: the first image of each class, uint8 `(E, 3, S, S)`; E is at most `MAX_EXAMPLES`.
    """

    probabilities: torch.Tensor
    logits: torch.Tensor
    labels: torch.Tensor
    identifiers: Sequence[str]
    mistakes: torch.Tensor
    mistake_images: torch.Tensor
    example_images: torch.Tensor


def evaluate_run(run: RunFolder, data: PreparedData | None = None) -> RunEvaluation:
    """Evaluates the best weights of a run, and writes `evaluation.json` and `predictions.npz` into its folder.

    Args:
        run: the folder of a run that has ended.
        data: the data of the run; None prepares them anew.

    Raises:
        RunError: the run has no weights, or its folder cannot be written.
        DataError: the data are not there any more, or a probability is not a finite number.
    """
    data = prepare_data(run.config(), run.path) if data is None else data
    evaluation, predictions = evaluate(run_predictor(run), data)
    try:
        write_atomically(run.path / EVALUATION_FILE, (evaluation.model_dump_json(indent=1) + "\n").encode())
        save_predictions(predictions, run.path / PREDICTIONS_FILE)
    except OSError as error:
        raise RunError(f"{run.path} cannot be written: {error.strerror}. Make room or make it writable.") from error
    return evaluation


def evaluate(
    predictor: Predictor, data: PreparedData, *, checkpoint: CheckpointName = "best"
) -> tuple[RunEvaluation, Predictions]:
    """Calibrates a model on the validation split, and measures it on the test split.

    Args:
        predictor: the model, whose temperature is set to the one that is fitted.
        data: the data of the run.
        checkpoint: the name of the weights that the model has, for the evaluation.

    Returns:
        the evaluation, and the predictions for the test split.

    Raises:
        DataError: a probability is not a finite number.
    """
    predictor.temperature.fill_(1.0)
    validation = predict(predictor, data.evaluation_batches("val"))
    calibration = fit_temperature(validation.logits, validation.labels)
    predictor.temperature.fill_(calibration.temperature)
    test = predict(predictor, data.evaluation_batches("test"))
    uncalibrated = measure(functional.softmax(test.logits, dim=1), test.labels, data.class_names)
    evaluation = RunEvaluation(
        checkpoint=checkpoint,
        calibration=calibration,
        validation_accuracy=float((validation.logits.argmax(1) == validation.labels).double().mean()),
        test=measure(test.probabilities, test.labels, data.class_names),
        uncalibrated_test_nll=uncalibrated.nll,
        uncalibrated_test_ece=uncalibrated.ece,
    )
    return evaluation, test


def predict(predictor: Predictor, batches: Iterable[EvaluationBatch]) -> Predictions:
    """Classifies every image, and keeps the pictures of the most confident mistakes and of an example of each class.

    Args:
        predictor: the model.
        batches: the images of a split, in batches.
    """
    probabilities, logits, labels = [], [], []
    identifiers: list[str] = []
    wrong: list[tuple[float, int, torch.Tensor]] = []  # confidence, position, image
    examples: dict[int, torch.Tensor] = {}
    caught: list[torch.Tensor] = []

    def catch(_model: nn.Module, _inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        caught.append(output.float())

    handle = predictor.model.register_forward_hook(catch)
    try:
        for images, batch_labels, batch_identifiers in batches:
            batch_probabilities = predictor.classify(images)  # (B, C)
            confidences, predictions = batch_probabilities.max(dim=1)
            for row in (predictions != batch_labels).nonzero()[:, 0].tolist():
                wrong.append((float(confidences[row]), len(identifiers) + row, images[row].clone()))
            wrong = sorted(wrong, key=lambda entry: -entry[0])[:MAX_MISTAKES]
            for label, image in zip(batch_labels.tolist(), images, strict=True):
                if len(examples) < MAX_EXAMPLES:
                    examples.setdefault(label, image.clone())
            probabilities.append(batch_probabilities)
            logits.append(caught.pop())
            labels.append(batch_labels)
            identifiers += batch_identifiers
    finally:
        handle.remove()
    size = predictor.image_size
    pictures = [image for _, _, image in wrong]
    return Predictions(
        torch.cat(probabilities),
        torch.cat(logits),
        torch.cat(labels),
        identifiers,
        torch.tensor([position for _, position, _ in wrong], dtype=torch.int64),
        torch.stack(pictures) if pictures else torch.zeros(0, 3, size, size, dtype=torch.uint8),
        torch.stack(list(examples.values())),
    )


def save_predictions(predictions: Predictions, path: Path) -> None:
    """Writes `predictions.npz`.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(predictions).items()}
    with open_atomically(path) as file:
        np.savez_compressed(file, **arrays)


def load_predictions(run: RunFolder) -> Predictions:
    """Reads `predictions.npz` of a run.

    Raises:
        RunError: the file cannot be read.
    """
    path = run.path / PREDICTIONS_FILE
    try:
        with np.load(path, allow_pickle=False) as arrays:
            identifiers = arrays["identifiers"].tolist()
            tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "identifiers"}
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error}. Has the run ended?") from error
    return Predictions(identifiers=identifiers, **tensors)
