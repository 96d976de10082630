"""Starts the service in a process of its own, and sends it images over HTTP in a closed loop.

images -> a task for each connection: POST /predict, read the answer, and again -> requests/s and latencies
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from app.errors import PredictorError
from app.settings import ModelSettings

_POLL_S = 0.05


class LoadError(PredictorError):
    """The server did not start, or did not answer as it should."""


@contextmanager
def own_server(settings: ModelSettings, *, start_timeout_s: float = 120) -> Iterator[str]:
    """Starts `serve` in a process of its own, and yields its URL once it is ready.

    Args:
        settings: the settings of the model to serve.
        start_timeout_s: how many seconds the service may take until it is ready.

    Raises:
        LoadError: the service ended, or was not ready in time. The last lines of its log are in the message.
    """
    chosen = {name: getattr(settings, name) for name in ModelSettings.model_fields}
    given = {f"PREDICTOR_{name.upper()}": str(value) for name, value in chosen.items() if value is not None}
    environment = os.environ | given
    command = [sys.executable, "-m", "app", "serve", "--host", "127.0.0.1", "--port", "0"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + start_timeout_s
            while not (url := _ready_url(log)):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise LoadError(_last_lines(log))
                time.sleep(_POLL_S)
            yield url
        finally:
            process.terminate()
            process.wait()


def _ready_url(log: Path) -> str | None:
    found = re.search(r"Listening on (http://\S+)", log.read_text(encoding="utf-8"))
    if not found:
        return None
    url = found[1].replace("localhost", "127.0.0.1")
    try:
        urlopen(f"{url}/health/startup", timeout=5).close()
    except (URLError, OSError):  # it is still loading
        return None
    try:
        urlopen(f"{url}/health/ready", timeout=5).close()
    except HTTPError as error:
        error.close()
        if any(model["state"] == "failed" for model in _models(url)):  # and never will be
            raise LoadError(_last_lines(log)) from None
        return None  # the service is changing its workers
    return url


def _models(url: str) -> list[dict[str, Any]]:
    with urlopen(f"{url}/models", timeout=5) as response:
        models: list[dict[str, Any]] = json.load(response)["models"]
    return models


def _last_lines(log: Path) -> str:
    lines = log.read_text(encoding="utf-8").splitlines()[-5:]
    return "\n".join(["The server did not become ready:", *lines])


async def closed_loop(
    url: str, images: Sequence[bytes], *, connections: int, seconds: float
) -> tuple[float, list[float]]:
    """Sends images to `/predict` for a while.

    Args:
        url: the server's URL.
        images: the images, sent in turn.
        connections: how many connections are kept open. Each waits for its answer before it sends the next image.
        seconds: how long to send. It takes longer if there is no answer until then.

    Returns:
        the requests a second, and the latency of each request in seconds.

    Raises:
        LoadError: an answer had another status than 200.
    """
    address = urlsplit(url)
    upcoming = itertools.cycle(images)
    latencies: list[float] = []
    started_at = time.perf_counter()

    async def connect() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            while time.perf_counter() < started_at + seconds or not latencies:  # to connect may have taken all of it
                sent_at = time.perf_counter()
                await _post(reader, writer, next(upcoming))
                latencies.append(time.perf_counter() - sent_at)
        finally:
            writer.close()

    await asyncio.gather(*(connect() for _ in range(connections)))
    return len(latencies) / (time.perf_counter() - started_at), latencies


async def _post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, image: bytes) -> None:
    head = (
        "POST /predict HTTP/1.1\r\nHost: bench\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {len(image)}\r\n\r\n"
    )
    writer.writelines([head.encode(), image])
    await writer.drain()
    answered = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = re.search(r"content-length: (\d+)", answered, re.IGNORECASE)
    body = await reader.readexactly(int(length[1])) if length else b""
    if " 200 " not in answered.partition("\r\n")[0]:
        raise LoadError(f"The server answered {answered.partition(chr(13))[0]}: {body.decode(errors='replace')}")
