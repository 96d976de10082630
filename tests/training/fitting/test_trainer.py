"""The loop learns, keeps its best weights, and stops when it is told to or when the loss is not finite."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.training_runs import digits_config, make_trainer, read_lines
from training.errors import DivergedError
from training.runs.checkpoint import load_best

pytestmark = pytest.mark.slow


def test_loop_learns_the_digits_and_logs_every_step(tmp_path: Path) -> None:
    trainer = make_trainer(digits_config(tmp_path, epochs=4, augmentation="none", dropout=0, ema_decay=0.9))
    _, accuracy_before = trainer.validate(trainer.stages.for_epoch(0))
    trainer.fit()
    history, steps = read_lines(trainer.run.history_file), read_lines(trainer.run.steps_file)
    assert [line["epoch"] for line in history] == [1, 2, 3, 4]
    assert history[-1]["val_accuracy"] > 0.85
    assert history[-1]["train_loss"] < history[0]["train_loss"] / 2
    assert [line["step"] for line in steps] == list(range(1, 4 * 20 + 1))
    of_first = [line["loss"] for line in steps if line["epoch"] == 1]
    assert history[0]["train_loss"] == pytest.approx(sum(of_first) / len(of_first), rel=0.05)
    best = load_best(trainer.run.best_checkpoint)
    assert best.metrics["val_accuracy"] == max(line["val_accuracy"] for line in history)
    assert accuracy_before < 0.35


def test_same_seed_gives_the_same_weights_and_another_does_not(tmp_path: Path) -> None:
    trainers = [make_trainer(digits_config(tmp_path, epochs=1, seed=seed)) for seed in (3, 3, 4)]
    for trainer in trainers:
        trainer.fit()
    first, same, other = (trainer.model.state_dict()["head.output.weight"] for trainer in trainers)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_early_stopping_waits_for_its_patience(tmp_path: Path) -> None:
    trainer = make_trainer(
        digits_config(
            tmp_path,
            epochs=9,
            learning_rate=1e-12,
            early_stopping_patience=2,
            monitor="val_loss",
            batchnorm=False,
            optimiser="sgd",
        )
    )
    trainer.fit()
    assert trainer.progress.stopped_early
    best = trainer.progress.best_epoch + 1
    assert len(read_lines(trainer.run.history_file)) == best + 2 < 9
    again = make_trainer(trainer.config, trainer.run)
    again.fit()
    assert len(read_lines(trainer.run.history_file)) == best + 2


def test_diverging_run_says_where_and_what_to_do(tmp_path: Path) -> None:
    trainer = make_trainer(digits_config(tmp_path, optimiser="sgd", learning_rate=1e6, batchnorm=False))
    with pytest.raises(DivergedError, match=r"The loss is (nan|inf) at step \d+ .* Lower learning_rate"):
        trainer.fit()
    assert trainer.run.last_checkpoint.is_file()
