"""Any ASGI server can run the application: uvicorn does, with settings from the environment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.support.colours import colour_image

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_uvicorn_serves_the_factory(colours_store: Path, tmp_path: Path, log_format: str) -> None:
    log = tmp_path / "log"
    variables = {"MODEL": "colours", "MODEL_STORE": str(colours_store), "LOG_FORMAT": log_format, "ACCESS_LOG": "true"}
    command = [sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app", "--port", "0", "--no-access-log"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=os.environ | {f"PREDICTOR_{name}": value for name, value in variables.items()},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        url = found_url(process, log)
        until(process, log, lambda: httpx.get(f"{url}/health/ready").status_code == 200)
        answer = httpx.post(f"{url}/predict", content=colour_image("red"))
        assert answer.json()["predictions"][0]["class_name"] == "red"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in {0, -signal.SIGTERM}  # uvicorn raises the signal again when it has finished
    finally:
        process.kill()
        process.wait()

    lines = log.read_text().splitlines()
    assert "Traceback" not in log.read_text()
    assert sum("POST /predict 200 " in line for line in lines) == 1
    assert any("Model colours" in line for line in lines)
    assert any("Application shutdown complete" in line for line in lines)  # of uvicorn, whose log lines stay its own


def found_url(process: subprocess.Popen[bytes], log: Path) -> str:
    until(process, log, lambda: bool(re.search(r"running on http://\S+", log.read_text())))
    found = re.search(r"running on (http://\S+)", log.read_text())
    assert found
    return found[1]


def until(process: subprocess.Popen[bytes], log: Path, condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, f"uvicorn has ended:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"uvicorn took too long:\n{log.read_text()}"
        time.sleep(0.05)
