"""Measures whether "80 % sure" is right in 80 % of the cases, and fits the temperature that mends it.

validation logits -> fit_temperature -> Predictor(temperature=...); test probabilities -> reliability_bins -> report
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import minimize_scalar
from torch.nn import functional

from training.evaluation.metrics import CALIBRATION_BINS

_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.05, 20.0


class Calibration(BaseModel):
    """The temperature that was fitted on the validation split, and whether it is used."""

    model_config = ConfigDict(frozen=True)

    temperature: float = Field(gt=0, description="The temperature of the Predictor; 1 if the fitted one is not kept")
    kept: bool
    reason: str = Field(description="Why the fitted temperature is kept or not")
    val_nll_before: float = Field(description="The validation loss at temperature 1, in nats")
    val_nll_after: float = Field(description="The validation loss at the temperature that is used, in nats")


class ReliabilityBin(BaseModel):
    """The images whose highest probability lies between `lowest` and `highest`."""

    model_config = ConfigDict(frozen=True)

    lowest: float
    highest: float
    image_count: int
    confidence: float = Field(description="The mean of the highest probability")
    accuracy: float


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> Calibration:
    """Fits the one number that all logits are divided by (Guo et al. 2017, https://arxiv.org/abs/1706.04599).

    The temperature changes how sure predictions are, never which class is predicted. It is kept only if the negative
    log-likelihood of these images gets better. If every image is classified rightly, that likelihood rises without end
    as the temperature falls to 0. Targets of (N + 1) / (N + 2) instead of 1 leave the doubt that N images leave (Platt
    1999, "Probabilistic outputs for support vector machines", section 2.2).

    Args:
        logits: the logits of the validation split, `(N, C)`. Logits of the test split would make its figures too good.
        labels: the class of each image, int64 `(N,)`.
    """
    logits = logits.double()
    image_count, class_count = logits.shape
    # torch spreads the smoothing over all classes, the label among them.
    smoothing = class_count / max(class_count - 1, 1) / (image_count + 2)
    bounds = (1 / _MAX_TEMPERATURE, 1 / _MIN_TEMPERATURE)
    # The loss is convex in 1 / temperature, so that the bounded search finds the one minimum.
    fit = minimize_scalar(lambda inverse: _nll(logits, labels, 1 / inverse, smoothing), bounds=bounds, method="bounded")
    temperature = 1 / float(fit.x)
    before, after = _nll(logits, labels, 1.0), _nll(logits, labels, temperature)
    if not after < before:
        reason = "not kept: the validation loss does not get better"
        return Calibration(temperature=1.0, kept=False, reason=reason, val_nll_before=before, val_nll_after=before)
    reason = "kept: the validation loss gets better"
    return Calibration(temperature=temperature, kept=True, reason=reason, val_nll_before=before, val_nll_after=after)


def reliability_bins(
    probabilities: torch.Tensor, labels: torch.Tensor, *, bin_count: int = CALIBRATION_BINS
) -> list[ReliabilityBin]:
    """Groups images by how sure the model is of them, and leaves out bins without images.

    Args:
        probabilities: the probabilities of each image, `(N, C)`.
        labels: the class of each image, int64 `(N,)`.
        bin_count: the number of bins, which have equal widths between 0 and 1.
    """
    confidences, predictions = probabilities.double().max(dim=1)
    correct = (predictions == labels).double()
    numbers = (confidences * bin_count).ceil().long().clamp(1, bin_count) - 1  # (N,): bins are open on the left
    bins = []
    for number in sorted(set(numbers.tolist())):
        inside = numbers == number
        bins.append(
            ReliabilityBin(
                lowest=number / bin_count,
                highest=(number + 1) / bin_count,
                image_count=int(inside.sum()),
                confidence=float(confidences[inside].mean()),
                accuracy=float(correct[inside].mean()),
            )
        )
    return bins


def _nll(logits: torch.Tensor, labels: torch.Tensor, temperature: float, smoothing: float = 0.0) -> float:
    return float(functional.cross_entropy(logits / temperature, labels, label_smoothing=smoothing))
