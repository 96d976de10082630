"""Clients that weigh too much for every run of the tests: `make test-clients` gives them environments of their own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

CLIENTS = os.environ.get("CLIENTS", "")
HERE = Path(__file__).parent
TOLERANCE = 1e-4
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CLIENTS, reason="make test-clients installs these clients")]


def answer_of(*command: object) -> Any:
    """Returns the JSON that a client printed."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_kserves_client_speaks_both_protocols(url: str, photo: Path, expected: dict[str, float]) -> None:
    answer = answer_of(Path(CLIENTS) / "kserve" / "bin" / "python", HERE / "kserve_client.py", url, photo)

    assert answer["live"] == [True, True]
    assert answer["ready"] == [True]
    assert answer["model_ready"] == [True, True]
    assert answer["v1"]["predictions"] == [pytest.approx(expected, abs=TOLERANCE)]
    assert sorted(answer["v2"][0]) == pytest.approx(sorted(expected.values()), abs=TOLERANCE)
    assert sum(answer["v2_binary"][0]) == pytest.approx(1, abs=TOLERANCE)


def test_hugging_faces_client_for_javascript(url: str, photo: Path, expected: dict[str, float]) -> None:
    answer = answer_of("node", HERE / "huggingface_client.mjs", url, photo, Path(CLIENTS) / "javascript")

    assert {each["label"]: each["score"] for each in answer["answer"]} == pytest.approx(expected, abs=TOLERANCE)
    assert "not an image" in answer["failure"]
