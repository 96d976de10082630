"""The temperature makes probabilities agree with accuracy, and is kept only if it helps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from training.evaluation.calibration import fit_temperature, reliability_bins
from training.evaluation.metrics import measure


def _logits_and_labels(image_count: int = 5000) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels drawn from the very probabilities that the logits give: calibrated by construction."""
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(image_count, 6, generator=generator)
    return logits, torch.multinomial(torch.softmax(logits, 1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("factor", [0.4, 3.0])
def test_temperature_undoes_the_factor_that_made_a_model_too_sure_or_too_shy(factor: float) -> None:
    logits, labels = _logits_and_labels()
    calibration = fit_temperature(factor * logits, labels)
    assert calibration.kept
    assert calibration.temperature == pytest.approx(factor, rel=0.05)
    assert calibration.val_nll_after < calibration.val_nll_before
    assert calibration.val_nll_after == pytest.approx(
        float(functional.cross_entropy(factor * logits / calibration.temperature, labels)), rel=1e-4
    )


def test_temperature_lowers_the_calibration_error() -> None:
    logits, labels = _logits_and_labels()
    names = list("abcdef")
    temperature = fit_temperature(3 * logits[:2500], labels[:2500]).temperature
    before = measure(torch.softmax(3 * logits[2500:], 1), labels[2500:], names)
    after = measure(torch.softmax(3 * logits[2500:] / temperature, 1), labels[2500:], names)
    assert after.ece < before.ece / 4
    assert after.accuracy == before.accuracy


def test_images_that_are_all_classified_rightly_leave_some_doubt() -> None:
    labels = torch.arange(20) % 2
    calibration = fit_temperature(functional.one_hot(labels, 2).float(), labels)
    confidence = torch.softmax(torch.tensor([1.0, 0.0]) / calibration.temperature, 0)[0]
    assert calibration.kept
    assert float(confidence) == pytest.approx(21 / 22, abs=1e-3)


def test_temperature_that_does_not_help_is_not_kept() -> None:
    labels = torch.tensor([0, 0, 1])
    sure = torch.tensor([[60.0, 0.0], [60.0, 0.0], [0.0, 60.0]])
    calibration = fit_temperature(sure, labels)
    assert (calibration.temperature, calibration.kept) == (1.0, False)
    assert calibration.val_nll_after == calibration.val_nll_before


def test_reliability_bins_give_the_expected_calibration_error() -> None:
    logits, labels = _logits_and_labels(700)
    probabilities = torch.softmax(2 * logits, 1)
    bins = reliability_bins(probabilities, labels)
    assert sum(row.image_count for row in bins) == 700
    assert all(row.lowest < row.confidence <= row.highest for row in bins)
    ece = sum(row.image_count / 700 * abs(row.confidence - row.accuracy) for row in bins)
    assert measure(probabilities, labels, list("abcdef")).ece == pytest.approx(ece, abs=1e-6)
