"""Computes how good a classifier is from probabilities and labels: with intervals, per class, and against guessing.

probabilities (N, C), labels (N,) -> measure -> Metrics -> evaluation.json, report, manifest
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_precision,
    multiclass_recall,
)

from training.errors import DataError
from training.evaluation.intervals import bootstrap_interval, wilson_interval

CALIBRATION_BINS = 15  # as Guo et al. 2017, https://arxiv.org/abs/1706.04599

Interval = tuple[float, float]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class ClassMetrics(_Frozen):
    """How well one class is recognised."""

    class_name: str
    image_count: int
    predicted_count: int = Field(description="How many images were predicted as this class")
    precision: float | None = Field(
        description="The part of the images predicted as this class that belong to it; None if there are none"
    )
    recall: float | None = Field(
        description="The part of this class's images that is recognised; None if there are none"
    )
    recall_interval: Interval | None = Field(description="The 95 % interval of recall, after Wilson")
    f1: float | None = Field(description="The harmonic mean of precision and recall; None if there are no images")


class Metrics(_Frozen):
    """How good a classifier is on labelled images. Intervals are of 95 %."""

    image_count: int
    accuracy: float = Field(description="The part of the images whose most probable class is the label (top-1)")
    accuracy_interval: Interval
    top5_accuracy: float | None = Field(
        description="The part of the images whose label is among the five most probable classes; None below 6 classes"
    )
    top5_interval: Interval | None
    macro_f1: float = Field(description="The mean of F1 over the classes that have images: rare ones count as much")
    macro_f1_interval: Interval = Field(description="The interval of macro_f1, by bootstrap")
    nll: float = Field(description="The negative log-likelihood: the mean of -log p(label), in nats")
    nll_interval: Interval = Field(description="The interval of nll, by bootstrap")
    ece: float = Field(description="The expected calibration error: the mean of |confidence - accuracy| over 15 bins")
    uniform_accuracy: float = Field(description="The accuracy of guessing: 1/C")
    majority_accuracy: float = Field(
        description="The accuracy of always predicting the most frequent class of the images"
    )
    majority_class: str
    classes: tuple[ClassMetrics, ...]
    confusion_matrix: tuple[tuple[int, ...], ...] = Field(description="Rows are labels, columns predictions")


def measure(probabilities: torch.Tensor, labels: torch.Tensor, class_names: Sequence[str]) -> Metrics:
    """Computes every figure at once.

    Args:
        probabilities: the probabilities of each image, float `(N, C)`; each row sums to 1.
        labels: the class of each image, int64 `(N,)`, 0 to C - 1.
        class_names: the names of the C classes.

    Raises:
        DataError: there are no images, or a probability is not a finite number.
    """
    image_count, class_count = probabilities.shape
    if image_count == 0:
        raise DataError("There are no images to evaluate on.")
    if not bool(probabilities.isfinite().all()):
        raise DataError("The model gives probabilities that are not finite numbers: it has diverged, train it anew.")
    predictions = probabilities.argmax(dim=1)  # (N,)
    confusion = multiclass_confusion_matrix(predictions, labels, num_classes=class_count)  # (C, C)
    correct = int(confusion.diag().sum())
    in_top5 = int((probabilities.topk(min(5, class_count), dim=1).indices == labels[:, None]).any(dim=1).sum())
    losses = -probabilities.gather(1, labels[:, None])[:, 0].double().clamp(min=1e-12).log().numpy()  # (N,)
    label_counts = confusion.sum(dim=1)
    label_array, prediction_array = labels.numpy(), predictions.numpy()

    def macro_f1_of(drawn: npt.NDArray[np.intp]) -> float:
        return _macro_f1(label_array[drawn], prediction_array[drawn], class_count)

    return Metrics(
        image_count=image_count,
        accuracy=correct / image_count,
        accuracy_interval=wilson_interval(correct, image_count),
        top5_accuracy=in_top5 / image_count if class_count > 5 else None,
        top5_interval=wilson_interval(in_top5, image_count) if class_count > 5 else None,
        macro_f1=macro_f1_of(np.arange(image_count)),
        macro_f1_interval=bootstrap_interval(macro_f1_of, image_count),
        nll=float(losses.mean()),
        nll_interval=bootstrap_interval(lambda drawn: float(losses[drawn].mean()), image_count),
        ece=float(
            multiclass_calibration_error(probabilities, labels, num_classes=class_count, n_bins=CALIBRATION_BINS)
        ),
        uniform_accuracy=1 / class_count,
        majority_accuracy=int(label_counts.max()) / image_count,
        majority_class=class_names[int(label_counts.argmax())],
        classes=_per_class(predictions, labels, confusion, class_names),
        confusion_matrix=tuple(tuple(row) for row in confusion.tolist()),
    )


def _per_class(
    predictions: torch.Tensor, labels: torch.Tensor, confusion: torch.Tensor, class_names: Sequence[str]
) -> tuple[ClassMetrics, ...]:
    class_count = len(class_names)
    precisions = multiclass_precision(predictions, labels, num_classes=class_count, average="none").tolist()
    recalls = multiclass_recall(predictions, labels, num_classes=class_count, average="none").tolist()
    rows = []
    for index, class_name in enumerate(class_names):
        image_count, predicted_count = int(confusion[index].sum()), int(confusion[:, index].sum())
        hits = int(confusion[index, index])
        rows.append(
            ClassMetrics(
                class_name=class_name,
                image_count=image_count,
                predicted_count=predicted_count,
                precision=precisions[index] if predicted_count else None,
                recall=recalls[index] if image_count else None,
                recall_interval=wilson_interval(hits, image_count) if image_count else None,
                f1=2 * hits / (image_count + predicted_count) if image_count else None,
            )
        )
    return tuple(rows)


def _macro_f1(labels: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64], class_count: int) -> float:
    """Computes macro F1 without a confusion matrix: the bootstrap needs it a thousand times."""
    hits = np.bincount(labels[labels == predictions], minlength=class_count)
    image_counts = np.bincount(labels, minlength=class_count)
    predicted_counts = np.bincount(predictions, minlength=class_count)
    present = image_counts > 0
    return float((2 * hits / np.maximum(image_counts + predicted_counts, 1))[present].mean())
