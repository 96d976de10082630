"""Attacks the service in ways that have once stopped it, and looks at a good client and at the probes beside it.

python -m benchmarks.attacks --seconds 120

Each attack has a service of its own. Attackers are another process. Meanwhile a good client sends a photo a few times a
second, each time on a new connection, and a probe asks 20 times a second.

unread  120 connections, twice as many as the service takes, ask for 20 large answers each, and read none
heads   20 clients send 14,000 heads at once behind an answer that they do not read
images  16 clients send small files that take the most time and memory to decode
chunks  10 clients send bodies in chunks of a byte
disk    the folder for temporary files is full; root alone can mount one
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import uvloop

from app.commands.bench.http_load import Answered, Client, OwnServer, address_of, own_server, post
from benchmarks.costly_images import flat_images
from benchmarks.overload import photo
from benchmarks.support.load import ProcessTree, claim, percentile_ms

Address = tuple[str, int]

_GOOD_PER_SECOND: Final = 3
_PROBES_PER_SECOND: Final = 20
_GET: Final = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
_POST: Final = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n%s\r\n\r\n"
_UNREAD_CONNECTIONS: Final = 120
_SMALL_BYTES: Final = 2_000_000
# What 14,000 heads cost on each of 20 connections, if they are all parsed, is 320 MB.
_MAX_GROWTH_BYTES: Final = 150_000_000


def main() -> None:
    """Prints the figures; the exit status is 1 if a claim fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="of each attack")
    parser.add_argument("--attacks", default=",".join(_ATTACKS))
    arguments, options = parser.parse_known_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = True
    images = [image for image in flat_images() if len(image) < _SMALL_BYTES]
    for name in arguments.attacks.split(","):
        settings = {"max_connections": _UNREAD_CONNECTIONS // 2} if name == "unread" else {}
        folder = _full_folder() if name == "disk" else contextlib.nullcontext()
        with folder, own_server(settings, options=options) as server:
            server.wait_until_ready()
            held &= uvloop.run(_measure(name, server, images, arguments.seconds))
    sys.exit(0 if held else 1)


async def _measure(name: str, server: OwnServer, images: list[bytes], seconds: float) -> bool:
    url, processes = server.url, ProcessTree(server.process.pid)
    image, probe = post(photo(), "Connection: close"), _GET % b"/health/live"
    for _ in range(10):
        await Client(url).ask(image)
    calm_bytes = memory = processes.resident_bytes()
    spawning = multiprocessing.get_context("spawn")
    attackers = spawning.Process(target=_attack, args=(name, address_of(url), images, seconds + 60), daemon=True)
    attackers.start()
    await asyncio.sleep(3.0)  # until all of them are at it
    good, probes = asyncio.create_task(_ask(url, image, _GOOD_PER_SECOND, seconds)), asyncio.create_task(
        _ask(url, probe, _PROBES_PER_SECOND, seconds)
    )  # fmt: skip
    while not good.done():
        memory = max(memory, processes.resident_bytes())
        await asyncio.sleep(0.25)
    attackers.kill()
    attackers.join()
    answers, probed = await good, await probes
    for kind, those in {"good client": answers, "probes": probed}.items():
        p50, p99 = percentile_ms(those, 50), percentile_ms(those, 99)
        print(f"{name}: {kind}: {len(those)} answers, p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    growth = memory - calm_bytes
    # Images may take a quarter of the machine's memory, which is a limit of its own.
    bound = _budget_bytes() + _MAX_GROWTH_BYTES if name == "images" else _MAX_GROWTH_BYTES
    served = sum(answer.status == 200 for answer in answers)
    heard = sum(answer.status == 200 for answer in probed)
    return all(
        [
            claim(f"{served} of {len(answers)} good requests are answered", served == len(answers)),
            claim("99 % of them within a second", percentile_ms(answers, 99) <= 1000),
            claim(f"{heard} of {len(probed)} probes are answered", heard == len(probed)),
            claim("99 % of them within 100 ms", percentile_ms(probed, 99) <= 100),
            claim(f"memory grows by {growth / 1e6:.0f} MB, at most {bound / 1e6:.0f}", growth <= bound),
        ]
    )


async def _ask(url: str, request: bytes, per_second: float, seconds: float) -> list[Answered]:
    """Asks again and again, each time on a new connection; a broken one has the status 0."""
    answers: list[Answered] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        began, client = time.perf_counter(), Client(url)
        try:
            answers.append(await asyncio.wait_for(client.ask(request), 30))
        except (OSError, TimeoutError):
            answers.append(Answered(0, began, time.perf_counter() - began))
        client.close()
        await asyncio.sleep(max(0.0, began + 1 / per_second - time.perf_counter()))
    return answers


def _attack(name: str, address: Address, images: list[bytes], seconds: float) -> None:
    """Runs the attackers, in a process of their own."""
    count, attack = _ATTACKS[name]
    until = time.monotonic() + seconds

    def work(number: int) -> None:
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                attack(address, images[number % len(images)])

    for number in range(count):
        threading.Thread(target=work, args=(number,), daemon=True).start()
    time.sleep(seconds)


def _read_nothing(address: Address, _image: bytes) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(_UNREAD_CONNECTIONS // 4):
            connection = opened.enter_context(socket.create_connection(address, 20))
            connection.sendall(_GET % b"/openapi.json" * 20)
        time.sleep(10)


def _send_heads(address: Address, _image: bytes) -> None:
    with socket.create_connection(address, 20) as connection:
        connection.sendall(_GET % b"/openapi.json" + b"GET / HTTP/1.1\r\n\r\n" * 14_000)
        time.sleep(5)


def _send_images(address: Address, image: bytes) -> None:
    with socket.create_connection(address, 60) as connection:
        connection.sendall(_POST % b"Content-Length: %d" % len(image) + image)
        connection.recv(65_536)


def _send_chunks(address: Address, _image: bytes) -> None:
    with socket.create_connection(address, 20) as connection:
        connection.sendall(_POST % b"Transfer-Encoding: chunked")
        while True:
            connection.sendall(b"1\r\nx\r\n" * 40_000)


def _nothing(_address: Address, _image: bytes) -> None:
    time.sleep(1)


_ATTACKS: Final[dict[str, tuple[int, Callable[[Address, bytes], None]]]] = {
    "unread": (4, _read_nothing),
    "heads": (20, _send_heads),
    "images": (16, _send_images),
    "chunks": (10, _send_chunks),
    "disk": (1, _nothing),
}


def _budget_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


@contextlib.contextmanager
def _full_folder() -> Iterator[None]:
    """Mounts a folder for temporary files without room, which the service finds in TMPDIR."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "none", folder], check=True)
        before = os.environ.get("TMPDIR")
        try:
            with (Path(folder) / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            os.environ["TMPDIR"] = folder
            yield
        finally:
            os.environ.pop("TMPDIR")
            if before:
                os.environ["TMPDIR"] = before
            subprocess.run(["umount", "-l", folder], check=True)


if __name__ == "__main__":
    main()
