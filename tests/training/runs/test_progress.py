"""A terminal shows bars with images per second and the time left; elsewhere there are plain lines."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from training.runs.progress import Reporter


def _show(console: Console) -> None:
    with Reporter(console=console).track("Epoch 1 of 2", 10) as advance:
        for _ in range(5):
            advance(64, "loss 0.500")


def test_terminal_shows_a_bar() -> None:
    file = io.StringIO()
    _show(Console(file=file, force_terminal=True, width=120))
    assert "Epoch 1 of 2" in file.getvalue()
    assert "images/s" in file.getvalue()
    assert "5/10" in file.getvalue()


def test_elsewhere_long_work_says_so_in_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 10_000, 20))
    monkeypatch.setattr("training.runs.progress.time.monotonic", lambda: float(next(now)))
    file = io.StringIO()
    _show(Console(file=file, width=200))
    lines = file.getvalue().splitlines()
    assert lines
    assert lines[0].startswith("Epoch 1 of 2: step ")
    assert "images/s" in lines[0]
    assert "s left loss 0.500" in lines[0]
    assert "\r" not in file.getvalue()


def test_other_processes_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter(active=False).line("hello")
    assert capsys.readouterr().err == ""
