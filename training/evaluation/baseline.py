"""Measures what a run has to beat: the accuracy and loss of guessing, and of the network before training.

the validation split's loss and accuracy before training, labels -> measure_baseline -> Baseline -> baseline.json
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from training.data.prepared import PreparedData


@dataclass(frozen=True)
class Baseline:
    """Accuracies and losses on the validation split that need no training.

    Attributes:
        val_loss: the mean cross-entropy of the untrained network, in nats.
        val_accuracy: the accuracy of the untrained network.
        guess_accuracy: the accuracy of guessing among C classes: 1/C.
        guess_loss: the cross-entropy of guessing: ln C, in nats.
        majority_class: the name of the most frequent class of the training split.
        majority_accuracy: the accuracy of always answering `majority_class`.
    """

    val_loss: float
    val_accuracy: float
    guess_accuracy: float
    guess_loss: float
    majority_class: str
    majority_accuracy: float

    def sentence(self) -> str:
        """Returns the sentence that a person reads before the first epoch."""
        return (
            f"Before training: val loss {self.val_loss:.3f} (guessing: {self.guess_loss:.3f}), accuracy "
            f"{self.val_accuracy:.3f} (guessing: {self.guess_accuracy:.3f}, always {self.majority_class}: "
            f"{self.majority_accuracy:.3f})"
        )


def measure_baseline(val_loss: float, val_accuracy: float, data: PreparedData) -> Baseline:
    """Compares a network before training with guessing.

    Args:
        val_loss: the mean cross-entropy of the untrained network on the validation split, in nats.
        val_accuracy: the accuracy of the untrained network on the validation split.
        data: the data of the run.
    """
    class_count = len(data.class_names)
    counts = torch.bincount(data.labels("val"), minlength=class_count)  # (C,)
    majority = int(torch.bincount(data.labels("train"), minlength=class_count).argmax())
    return Baseline(
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        guess_accuracy=1 / class_count,
        guess_loss=math.log(class_count),
        majority_class=data.class_names[majority],
        majority_accuracy=int(counts[majority]) / int(counts.sum()),
    )
