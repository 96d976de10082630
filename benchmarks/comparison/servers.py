"""Starts, asks and stops our server and its peers, one at a time.

Server -> running(server, model) -> ready at the first right answer -> ... -> SIGTERM -> nothing of it is left
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.comparison.environments import PEERS, python_of
from benchmarks.support.load import form

_READY_TIMEOUT_S = 90
_STOP_TIMEOUT_S = 20
_RUN_MARKER = "BENCHMARK_RUN"  # in the environment of a server and of all that it starts, wherever they reparent to


class ServerError(Exception):
    """A server did not start, or did not answer."""


@dataclass(frozen=True)
class Server:
    """A server that can be measured.

    Attributes:
        name: the server's name in the tables; a peer's is that of its folder.
        command: makes the command line that starts the server on a port.
        path: the path that images are POSTed to.
        form_field: the field of the multipart form; None where the image is the body.
        kind: `ours`; `peer`: configured as its documentation says; `expert`: with the engine that we have.
        environment: environment variables that are added to ours.
        ready_path: the path of the probe that tells when all processes serve; None where there is no probe.
    """

    name: str
    command: Callable[[int], list[str]]
    path: str
    form_field: str | None
    kind: str = "peer"
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_path: str | None = None

    @property
    def folder(self) -> str:
        """The folder of `benchmarks/peers` that has its requirements."""
        return self.name.removesuffix("_openvino")


@dataclass
class Running:
    """A server that answers.

    Attributes:
        server: the server that runs.
        url: the URL that images are POSTed to.
        ready_s: seconds from the server's start to its first answer.
        left_behind: how many processes outlived the server; known once it has stopped.
    """

    server: Server
    url: str
    ready_s: float
    _marker: str
    left_behind: int = 0

    def rss_bytes(self) -> int:
        """Returns the resident memory of all its processes."""
        return sum(process.memory_info().rss for process in _marked(self._marker))


@dataclass(frozen=True)
class Upload:
    """A request's body.

    Attributes:
        content_type: the body's media type.
        body: the image, in a form or not.
    """

    content_type: str
    body: bytes


def upload_of(image: Path, server: Server) -> Upload:
    """Returns the request that a server takes an image in."""
    encoded = image.read_bytes()
    if server.form_field is None:
        return Upload("application/octet-stream", encoded)
    image_type = f"image/{'png' if image.suffix == '.png' else 'jpeg'}"
    body, content_type = form(encoded, field=server.form_field, filename=image.name, image_type=image_type)
    return Upload(content_type, body)


def ours(store: Path, name: str = "ours", **environment: str) -> Callable[[str], Server]:
    """Returns our server, of a model, with its default settings or other ones from the environment."""

    def server(model: str) -> Server:
        def command(port: int) -> list[str]:
            return [
                sys.executable, "-m", "app", "serve", "--model-store", str(store), "--model", model, "--port", str(port)
            ]  # fmt: skip

        return Server(name, command, "/predict", None, "ours", environment, "/health/ready")

    return server


def peers(names: list[str]) -> list[Server]:
    """Returns the peers of those names."""
    return [_PEERS[name] for name in names]


def peer_names() -> list[str]:
    """Returns the names of all peers, the expert's build last."""
    return list(_PEERS)


def peer_kind(name: str) -> str | None:
    """Returns the kind of the peer of that name; None if it is no peer."""
    return _PEERS[name].kind if name in _PEERS else None


@contextmanager
def running(server: Server, model: Path, image: Path, folder: Path, port: int) -> Iterator[Running]:
    """Runs a server until the block ends.

    Args:
        server: the server to run.
        model: the TorchScript file that peers load; a `model.onnx` lies beside it.
        image: the image that is sent until the first answer.
        folder: takes the server's log and what it writes.
        port: where the server listens; TorchServe takes the four ports above it too.

    Raises:
        ServerError: it ends, or does not answer in time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marker = uuid.uuid4().hex
    environment = os.environ | {
        "MODEL": str(model.resolve()),
        "PYTHONPATH": os.pathsep.join([str(PEERS), str(PEERS.parent.parent)]),
        _RUN_MARKER: marker,
        **server.environment,
    }
    log = folder / f"{server.name}.log"
    started_at = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            server.command(port), cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
    state = Running(server, f"http://127.0.0.1:{port}{server.path}", 0.0, marker)
    try:
        _wait_until_it_answers(process, state.url, upload_of(image, server), log)
        state.ready_s = time.monotonic() - started_at
        _wait_until_all_is_ready(server, port)
        yield state
    finally:
        state.left_behind = _stop(process, marker)


def ask(url: str, upload: Upload, timeout_s: float = 30.0) -> bytes:
    """Sends one request; returns the body of its answer.

    Raises:
        OSError: there was no answer, or not one of success.
    """
    request = urllib.request.Request(url, upload.body, {"Content-Type": upload.content_type}, method="POST")
    with urllib.request.urlopen(request, timeout=timeout_s) as response:
        answer: bytes = response.read()
    return answer


def _wait_until_it_answers(process: subprocess.Popen[bytes], url: str, upload: Upload, log: Path) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    reason = ""
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(f"It ended with status {process.returncode}; see {log}.")
        try:
            answer = ask(url, upload)
            if b"class_name" not in answer:
                raise ServerError(f"Its answer holds no classes: {answer[:200]!r}")
            return
        except urllib.error.HTTPError as error:
            reason = f"{error}: {error.read()[:200]!r}"
        except OSError as error:
            reason = str(error)
        time.sleep(0.05)
    raise ServerError(f"It did not answer within {_READY_TIMEOUT_S} s ({reason}); see {log}.")


def _wait_until_all_is_ready(server: Server, port: int) -> None:
    """Waits until all processes serve; else the first one that answers gets all connections, and the others none."""
    if server.ready_path is None:
        return
    url = f"http://127.0.0.1:{port}{server.ready_path}"
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=_READY_TIMEOUT_S):
                return
        except OSError:
            time.sleep(0.05)
    raise ServerError(f"{server.ready_path} did not say within {_READY_TIMEOUT_S} s that it is ready.")


def _stop(process: subprocess.Popen[bytes], marker: str) -> int:
    """Ends a server as an orchestrator does; returns how many of its processes had to be killed afterwards."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, left = psutil.wait_procs(list(_marked(marker)), timeout=5)
    for orphan in left:
        orphan.kill()
    psutil.wait_procs(left, timeout=5)
    return len(left)


def _marked(marker: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get(_RUN_MARKER) == marker and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:  # it has ended, or is another user's
            continue


def _script(peer: str, *arguments: str, script_name: str = "server.py") -> Callable[[int], list[str]]:
    script = str(PEERS / peer / script_name)
    return lambda port: [str(python_of(peer)), script, *arguments, str(port)]


def _module(peer: str, module: str, *arguments: str) -> Callable[[int], list[str]]:
    def command(port: int) -> list[str]:
        return [str(python_of(peer)), "-m", module, *arguments, str(port)]

    return command


_MOSEC_OPTIONS = ("--address", "127.0.0.1", "--log-level", "warning", "--timeout", "30000", "--port")
_PEERS = {
    server.name: server
    for server in (
        Server(
            "tutorial",
            _module("tutorial", "uvicorn", "--app-dir", str(PEERS / "tutorial"), "server:app", "--log-level", "warning",
                    "--port"),
            "/predict",
            "file",
        ),
        Server(
            "mosec",
            _script("mosec", *_MOSEC_OPTIONS),
            "/inference",
            None,
        ),
        Server("litserve", _script("litserve"), "/predict", "file"),
        Server(
            "bentoml",
            _module("bentoml", "bentoml", "serve", "server:Classifier", "--working-dir", str(PEERS / "bentoml"),
                    "--host", "127.0.0.1", "--port"),
            "/predict",
            "images",
            environment={"BENTOML_DO_NOT_TRACK": "True"},
        ),
        Server("ray_serve", _script("ray_serve"), "/", None),
        Server("torchserve", _script("torchserve"), "/predictions/model", None),
        Server(
            "mosec_openvino",
            _script("mosec", *_MOSEC_OPTIONS, script_name="expert.py"),
            "/inference",
            None,
            "expert",
        ),
    )
}  # fmt: skip
