"""A run's files are replaced whole, and what a killed run left beside them does not stay."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from app.store.publishing import open_atomically
from training.errors import RunError
from training.runs.checkpoint import BestWeights, append_log, cut_log, load_best, save_best


def _weights(value: float) -> BestWeights:
    return BestWeights({"weight": torch.tensor([value])}, ("a", "b"), (0.5,), (0.25,), epoch=1)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "checkpoints" / "best.pt"
    path.parent.mkdir(parents=True)
    save_best(_weights(1.0), path)
    return path


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)


def test_weights_are_read_back_as_they_were(checkpoint: Path) -> None:
    assert load_best(checkpoint) == _weights(1.0)
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_full_disk_keeps_the_checkpoint_before_and_tells_the_way_out(checkpoint: Path, full_disk: None) -> None:
    with pytest.raises(RunError, match=r"best\.pt cannot be written: No space .*Free some space, .*--resume .*run\."):
        save_best(_weights(2.0), checkpoint)
    assert load_best(checkpoint) == _weights(1.0)
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_part_that_a_killed_run_left_is_deleted_with_the_next_checkpoint(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed, suppress(KeyboardInterrupt), open_atomically(checkpoint):
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        raise KeyboardInterrupt
    assert len(list(checkpoint.parent.iterdir())) == 2
    save_best(_weights(3.0), checkpoint)
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
    assert load_best(checkpoint) == _weights(3.0)


def test_log_is_cut_to_its_first_lines(tmp_path: Path) -> None:
    log = tmp_path / "steps.jsonl"
    cut_log(log, keep=2)
    assert not log.exists()
    append_log(log, [{"step": step} for step in range(5)])
    cut_log(log, keep=2)
    assert log.read_text() == '{"step": 0}\n{"step": 1}\n'


def test_log_that_cannot_be_cut_is_as_it_was(tmp_path: Path, full_disk: None) -> None:
    log = tmp_path / "steps.jsonl"
    append_log(log, [{"step": step} for step in range(5)])
    before = log.read_bytes()
    with pytest.raises(RunError, match=r"steps\.jsonl cannot be written"):
        cut_log(log, keep=2)
    assert log.read_bytes() == before
