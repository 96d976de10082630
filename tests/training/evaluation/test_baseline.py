"""The baseline of a run: guessing, the most frequent class, and the network before training."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tests.support.training_runs import digits_config
from training.data.prepared import PreparedData
from training.data.scan import Scan
from training.data.sources import ArraySource
from training.data.split import Split
from training.evaluation.baseline import measure_baseline
from training.runs.run_folder import RunFolder


def test_run_writes_its_baseline(digits_run: RunFolder) -> None:
    baseline = json.loads(digits_run.baseline_file.read_text())
    assert baseline["guess_accuracy"] == pytest.approx(0.1)
    assert baseline["guess_loss"] == pytest.approx(math.log(10))
    assert baseline["val_accuracy"] < 0.35
    assert baseline["val_loss"] > 2
    assert baseline["majority_accuracy"] == pytest.approx(0.1, abs=0.01)


def test_majority_is_that_of_the_training_split_measured_on_the_validation_split(tmp_path: Path) -> None:
    labels = (0, 1, 1, 0, 0, 1)
    source = ArraySource(("cat", "dog"), np.zeros((6, 8, 8), dtype=np.uint8), labels, (None,) * 6)
    split = Split(train=(0, 1, 2), val=(3, 4, 5), test=())
    data = PreparedData(digits_config(tmp_path), source, Scan(6, {}, (), (), 8, 8), split, ())
    baseline = measure_baseline(0.75, 0.5, data)
    assert asdict(baseline) == {
        "val_loss": 0.75,
        "val_accuracy": 0.5,
        "guess_accuracy": 0.5,
        "guess_loss": math.log(2),
        "majority_class": "dog",
        "majority_accuracy": 1 / 3,
    }
    assert baseline.sentence() == (
        "Before training: val loss 0.750 (guessing: 0.693), accuracy 0.500 (guessing: 0.500, always dog: 0.333)"
    )
