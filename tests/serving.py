"""The service as users run it, a process of its own: for tests of what only a process shows."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent


@contextmanager
def running_service(*options: str) -> Iterator[str]:
    """Runs `serve` on a free port until the block ends.

    Args:
        options: of the command line.

    Yields:
        its URL, without a slash at the end, as soon as loading has come to an end, good or bad.
    """
    command = [sys.executable, "-m", "app", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"Listening on (http://\S+)", line):
                break
        else:
            raise AssertionError(f"The service did not start:\n{''.join(lines)}")
        deadline = time.monotonic() + 60
        while httpx.get(f"{found[1]}/health/startup").status_code != 200:
            assert time.monotonic() < deadline
        yield found[1]
    finally:
        process.terminate()
        process.communicate()
