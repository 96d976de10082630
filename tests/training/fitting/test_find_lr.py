"""The range test suggests a rate that trains, and leaves the network as it was."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.support.training_runs import digits_config, make_trainer, read_lines
from training.fitting.find_lr import range_test, save_range_test

pytestmark = pytest.mark.slow


def test_weights_and_optimiser_are_put_back(tmp_path: Path) -> None:
    trainer = make_trainer(digits_config(tmp_path))
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    range_test(trainer, steps=30)
    for name, tensor in trainer.model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert trainer.optimiser.state_dict()["state"] == {}
    assert {group["lr"] for group in trainer.optimiser.param_groups} == {0.01}


def test_training_after_the_test_is_as_without_it(tmp_path: Path) -> None:
    tested, untested = (make_trainer(digits_config(tmp_path, epochs=1)) for _ in range(2))
    range_test(tested, steps=20)
    for trainer in (tested, untested):
        trainer.fit()
    assert read_lines(tested.run.steps_file) == read_lines(untested.run.steps_file)


def test_suggested_rate_trains_better_than_a_hundredth_of_it(tmp_path: Path) -> None:
    config = digits_config(
        tmp_path, epochs=1, schedule="constant", optimiser="sgd", augmentation="none", batchnorm=False
    )
    found = range_test(make_trainer(config), steps=80)
    assert found.suggestion < found.highest

    def val_loss(rate: float) -> float:
        trainer = make_trainer(config.model_copy(update={"learning_rate": rate}))
        trainer.fit()
        return float(read_lines(trainer.run.history_file)[0]["val_loss"])

    assert val_loss(found.suggestion) < val_loss(found.suggestion / 100)


def test_outcome_is_written_with_a_plot(tmp_path: Path) -> None:
    trainer = make_trainer(digits_config(tmp_path))
    found = range_test(trainer, lowest=1e-5, highest=1.0, steps=30)
    plot = save_range_test(found, trainer.run.path)
    with Image.open(plot) as image:
        assert image.width > 500
    written = json.loads((trainer.run.path / "find_lr.json").read_text())
    assert written["suggestion"] == found.suggestion
    rates = written["learning_rates"]
    steps = [math.log(after / before) for before, after in itertools.pairwise(rates)]
    assert max(steps) - min(steps) < 1e-6
