"""Metrics agree with scikit-learn, intervals with published figures, and what cannot be measured is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, log_loss, precision_recall_fscore_support
from torch.nn import functional

from training.errors import DataError
from training.evaluation.intervals import bootstrap_interval, wilson_interval
from training.evaluation.metrics import measure


def _predictions(image_count: int = 400, class_count: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, class_count, (image_count,), generator=generator)
    logits = torch.randn(image_count, class_count, generator=generator)
    logits[torch.arange(image_count), labels] += 1.5
    return torch.softmax(logits, dim=1), labels


def test_every_figure_agrees_with_scikit_learn() -> None:
    probabilities, labels = _predictions()
    metrics = measure(probabilities, labels, [f"c{index}" for index in range(7)])

    predictions = probabilities.argmax(1)
    precision, recall, f1, support = precision_recall_fscore_support(labels, predictions)
    assert metrics.accuracy == pytest.approx(float((predictions == labels).float().mean()))
    assert [row.precision for row in metrics.classes] == pytest.approx(precision.tolist())
    assert [row.recall for row in metrics.classes] == pytest.approx(recall.tolist())
    assert [row.f1 for row in metrics.classes] == pytest.approx(f1.tolist())
    assert [row.image_count for row in metrics.classes] == support.tolist()
    assert metrics.macro_f1 == pytest.approx(f1_score(labels, predictions, average="macro"))
    assert metrics.nll == pytest.approx(
        log_loss(labels, functional.normalize(probabilities.double(), p=1).numpy()), rel=1e-5
    )
    assert metrics.accuracy_interval[0] < metrics.accuracy < metrics.accuracy_interval[1]
    assert metrics.macro_f1_interval[0] < metrics.macro_f1 < metrics.macro_f1_interval[1]
    assert metrics.nll_interval[0] < metrics.nll < metrics.nll_interval[1]


def test_top5_accuracy_is_told_only_where_five_guesses_could_fail() -> None:
    probabilities, labels = _predictions()
    top5 = measure(probabilities, labels, list("abcdefg")).top5_accuracy
    ranks = (probabilities > probabilities.gather(1, labels[:, None])).sum(1)
    assert top5 == pytest.approx(float((ranks < 5).float().mean()))

    probabilities, labels = _predictions(class_count=5)
    assert measure(probabilities, labels, list("abcde")).top5_accuracy is None


def test_baselines_are_what_guessing_reaches() -> None:
    labels = torch.tensor([0, 1, 1, 1])
    metrics = measure(torch.full((4, 3), 1 / 3), labels, ["ant", "bee", "cat"])
    assert (metrics.majority_class, metrics.majority_accuracy) == ("bee", 0.75)
    assert metrics.uniform_accuracy == pytest.approx(1 / 3)


def test_class_without_images_has_no_recall_and_does_not_lower_macro_f1() -> None:
    probabilities = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    metrics = measure(probabilities, torch.tensor([0, 1]), ["ant", "bee", "cat"])
    assert metrics.classes[2].recall is None
    assert metrics.classes[2].f1 is None
    assert metrics.classes[2].precision is None
    assert metrics.macro_f1 == 1.0


def test_confusion_matrix_has_labels_as_rows() -> None:
    metrics = measure(torch.tensor([[0.1, 0.9], [0.3, 0.7]]), torch.tensor([0, 1]), ["ant", "bee"])
    assert metrics.confusion_matrix == ((0, 1), (0, 1))


def test_no_images_and_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="no images"):
        measure(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long), ["ant", "bee"])
    with pytest.raises(DataError, match="diverged"):
        measure(torch.full((1, 2), torch.nan), torch.zeros(1, dtype=torch.long), ["ant", "bee"])


def test_wilson_interval_agrees_with_published_figures() -> None:
    # R: prop.test(81, 263, correct=FALSE), the example of Newcombe 1998, table I.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson_interval(20, 20)[1] == 1.0
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(0, 0)


def test_bootstrap_interval_of_a_mean_is_the_textbook_one() -> None:
    values = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap_interval(lambda drawn: float(values[drawn].mean()), 400)
    half_width = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half_width, values.mean() + half_width), abs=0.01)
