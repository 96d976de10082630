"""Steps are logged and summed as they were, and a loss that is not finite names its step."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.support.training_runs import read_lines
from training.errors import DivergedError
from training.runs.checkpoint import Progress
from training.runs.step_log import StepLog


def _add(log: StepLog, loss: float, *, correct: int = 1, image_count: int = 4) -> None:
    log.add(torch.tensor(loss), torch.tensor(correct), image_count, 0.01)
    log.progress.step += 1
    log.progress.global_step += 1


def test_steps_are_numbered_from_where_the_run_is_and_added_to_its_sums(tmp_path: Path) -> None:
    progress = Progress(epoch=2, step=3, global_step=23, running=(10.0, 5.0, 12.0))
    log = StepLog(tmp_path / "steps.jsonl", progress)
    _add(log, 0.5, correct=3)
    _add(log, 0.25, correct=1, image_count=2)
    assert log.flush() == 0.25
    assert progress.running == (12.5, 9, 18)
    assert read_lines(tmp_path / "steps.jsonl") == [
        {"step": 24, "epoch": 3, "loss": 0.5, "accuracy": 0.75, "learning_rate": 0.01},
        {"step": 25, "epoch": 3, "loss": 0.25, "accuracy": 0.5, "learning_rate": 0.01},
    ]
    assert math.isnan(log.flush())  # nothing is counted twice
    assert progress.running == (12.5, 9, 18)


def test_losses_are_read_fifty_at_a_time() -> None:
    log = StepLog(None, Progress())
    for _ in range(49):
        _add(log, 1.0)
    assert not log.is_full
    _add(log, 1.0)
    assert log.is_full
    log.flush()
    assert not log.is_full


def test_process_without_a_file_sums_all_the_same(tmp_path: Path) -> None:
    log = StepLog(None, Progress())
    _add(log, 2.0)
    log.flush()
    assert log.progress.running == (8.0, 1, 4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_loss_that_is_not_finite_names_its_step_and_the_way_out(loss: float, tmp_path: Path) -> None:
    progress = Progress(epoch=1, global_step=20)
    log = StepLog(tmp_path / "steps.jsonl", progress)
    _add(log, 1.0)
    _add(log, loss)
    expected = rf"The loss is {loss} at step 22 \(epoch 2\), at a learning rate of 0.01. Lower learning_rate"
    with pytest.raises(DivergedError, match=expected):
        log.flush()
    assert progress.running == (0.0, 0.0, 0.0)
    assert not (tmp_path / "steps.jsonl").exists()
