"""Sends ten times more than the service can do, and looks at the requests, the probes and the memory.

python -m benchmarks.overload --seconds 120

1. capacity alone, in a closed loop.
2. capacity beside a generator as busy as that of step 3 whose requests go to another process, which only reads and
   refuses them. On a machine that server and generator share, that is what is left for the server before it has refused
   anything, and what its goodput is compared with.
3. an open loop at `--factor` times the capacity, bodies sent at once on kept connections, each request with the header
   `X-Request-Timeout-Ms`; another process asks the probes, each 20 times a second.
4. single requests, until they are answered as fast as before.

Steps 2 to 4 take turns, because a shared machine is not as fast in one minute as in the next; the median counts.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import multiprocessing
import socket
import statistics
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

import skimage.data
import uvloop
from PIL import Image

from app.commands.bench.http_load import Answered, closed_loop, own_server, post
from benchmarks.support.load import ProcessTree, claim, open_loop, percentile_ms

_PROBES = ("/health/live", "/health/ready")
_TURNS = 6
_WARM_UP_S = 1.0  # of the overload, in which the queue fills; not counted as goodput
_REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


def main() -> None:
    """Prints the figures; the exit status is 1 if a claim fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=18, help="how long the overload lasts, all turns together")
    parser.add_argument("--capacity-seconds", type=float, default=4, help="of each measurement of the capacity")
    parser.add_argument("--factor", type=float, default=10)
    parser.add_argument("--timeout-ms", type=int, default=3000)
    parser.add_argument("--mixed", action="store_true", help="one request of each protocol in turn, not /predict alone")
    arguments, options = parser.parse_known_args()
    with own_server({}, options=options) as server:
        server.wait_until_ready()
        sys.exit(0 if _measure(server.url, ProcessTree(server.process.pid), arguments) else 1)


def photo(width: int = 640, height: int = 480) -> bytes:
    """Returns a photo as a JPEG, as cameras and phones write it.

    Args:
        width: the width in pixels.
        height: the height in pixels.
    """
    buffer = io.BytesIO()
    coffee = skimage.data.coffee()  # type: ignore[no-untyped-call]
    Image.fromarray(coffee).resize((width, height)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _requests(image: bytes, *headers: str, mixed: bool) -> list[bytes]:
    """Returns requests with an image: to /predict, or one of each protocol."""
    if not mixed:
        return [post(image, *headers)]
    text = base64.b64encode(image).decode()
    tensor = {"name": "x", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(image) + 4}}
    head = json.dumps({"inputs": [tensor]}).encode()
    binary = head + len(image).to_bytes(4, "little") + image
    instances = json.dumps({"instances": [{"b64": text}]}).encode()
    return [
        post(image, *headers),
        post(image, *headers, path="/predictions/imagenet"),
        post(binary, f"Inference-Header-Content-Length: {len(head)}", *headers, path="/v2/models/imagenet/infer"),
        post(instances, *headers, path="/v1/models/imagenet:predict", content_type="application/json"),
        post(image, *headers, path="/"),
        post(image, *headers, path="/invocations"),
    ]


def _measure(url: str, processes: ProcessTree, arguments: argparse.Namespace) -> bool:
    timeout_ms = arguments.timeout_ms
    image = photo()
    plain = _requests(image, mixed=arguments.mixed)
    limited = _requests(image, f"X-Request-Timeout-Ms: {timeout_ms}", mixed=arguments.mixed)
    print(
        f"{len(image):,} bytes a request, which has {timeout_ms} ms; options after these are the server's", flush=True
    )
    before = uvloop.run(closed_loop(url, plain, connections=1, seconds=2, strict=False))
    offered = arguments.factor * _capacity(url, plain, arguments.capacity_seconds)
    print(f"capacity {offered / arguments.factor:.0f} images/s alone; {offered:.0f}/s are offered")
    calm_bytes = processes.resident_bytes()
    seconds = arguments.seconds / _TURNS
    answers: list[Answered] = []
    probes: list[Answered] = []
    memory: list[int] = []
    shares, recoveries_s = [], []
    for _ in range(_TURNS):
        beside = _capacity_beside(url, plain, limited, offered, arguments.capacity_seconds)
        receiving, sending = multiprocessing.get_context("spawn").Pipe(duplex=False)
        with _Process(_probe, url, seconds, sending):
            some, used = uvloop.run(_overload(url, processes, limited, offered, seconds))
            recoveries_s.append(uvloop.run(_recover(url, plain[0], percentile_ms(before, 95) / 1000)))
            probes += receiving.recv()
        goodput = _goodput(some, seconds)
        print(
            f"  {beside:.0f} images/s beside a generator, goodput {goodput:.0f}/s = {goodput / beside:.0%}", flush=True
        )
        shares.append(goodput / beside)
        answers += some
        memory += used
    share, recovery_s = statistics.median(shares), max(recoveries_s)
    by_status = {status: [a for a in answers if a.status == status] for status in sorted({a.status for a in answers})}
    for status, some in by_status.items():
        name = status or "broken"
        figures = ", ".join(f"p{percent:g} {percentile_ms(some, percent):.1f} ms" for percent in (50, 99, 99.9))
        print(f"  {name}: {len(some)}, {figures}")
    print(f"  probes: {len(probes)}, p50 {percentile_ms(probes, 50):.1f} ms, p99 {percentile_ms(probes, 99):.1f} ms")
    print(f"  memory: {calm_bytes / 1e6:.0f} MB before, then {', '.join(f'{each / 1e6:.0f}' for each in memory)}")
    served, refused = by_status.get(200, []), by_status.get(503, [])
    settled = memory[len(memory) // 2 :]
    return all(
        [
            claim(f"goodput is {share:.0%} of what is left beside the generator, >= 90 %", share >= 0.9),
            claim(f"99 % of the admitted within {timeout_ms} ms", percentile_ms(served, 99) <= timeout_ms),
            claim("99 % of the refused within 50 ms", percentile_ms(refused, 99) <= 50),
            claim("99 % of the probes within 100 ms, all good", _all_good(probes) and percentile_ms(probes, 99) <= 100),
            claim("no other answer, no broken connection", set(by_status) <= {200, 503, 504}),
            claim(
                "memory grows no more in the second half", max(settled) <= 1.05 * max(memory[: len(memory) // 2 + 1])
            ),
            claim(f"back to normal after {recovery_s:.2f} s, <= 2 s", recovery_s <= 2),
        ]
    )


def _all_good(answers: list[Answered]) -> bool:
    return bool(answers) and all(answer.status == 200 for answer in answers)


def _capacity(url: str, requests: Sequence[bytes], seconds: float) -> float:
    uvloop.run(closed_loop(url, requests, connections=16, seconds=1, strict=False))
    answers = uvloop.run(closed_loop(url, requests, connections=16, seconds=seconds, strict=False))
    return sum(answer.status == 200 for answer in answers) / seconds


def _capacity_beside(
    url: str, requests: Sequence[bytes], others: Sequence[bytes], per_second: float, seconds: float
) -> float:
    """Returns the capacity beside a generator whose requests go elsewhere."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sink_url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with _Process(_sink, listening), _Process(_generate, sink_url, others, per_second, 600.0):
            time.sleep(1)
            return _capacity(url, requests, seconds)


def _goodput(answers: list[Answered], seconds: float) -> float:
    """Returns the answers with probabilities a second, once the queue is full."""
    started_at = min(answer.due_at for answer in answers)
    ended = [answer.due_at + answer.latency_s - started_at for answer in answers if answer.status == 200]
    return sum(_WARM_UP_S < each < seconds for each in ended) / (seconds - _WARM_UP_S)


async def _overload(
    url: str, processes: ProcessTree, requests: Sequence[bytes], per_second: float, seconds: float
) -> tuple[list[Answered], list[int]]:
    memory: list[int] = []

    async def watch() -> None:
        while True:
            await asyncio.sleep(seconds / 3)
            memory.append(processes.resident_bytes())

    watching = asyncio.create_task(watch())
    answers = await open_loop(url, requests, per_second=per_second, seconds=seconds)
    watching.cancel()
    return answers, memory


async def _recover(url: str, request: bytes, usual_s: float) -> float:
    """Returns the seconds until a request is answered within twice the usual time."""
    started_at = time.perf_counter()
    while time.perf_counter() < started_at + 30:
        began_at = time.perf_counter() - started_at
        answers = await closed_loop(url, [request], connections=1, seconds=0, strict=False)
        if answers[0].status == 200 and answers[0].latency_s <= 2 * usual_s:
            return began_at
        await asyncio.sleep(0.02)
    return float("inf")


class _Process:
    """Runs a function in a process of its own for as long as the block lasts."""

    def __init__(self, function: object, *arguments: object) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._process = spawn.Process(target=function, args=arguments, daemon=True)  # type: ignore[arg-type]

    def __enter__(self) -> None:
        self._process.start()

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()


def _generate(url: str, requests: Sequence[bytes], per_second: float, seconds: float) -> None:
    time.sleep(0.3)
    uvloop.run(open_loop(url, requests, per_second=per_second, seconds=seconds))


def _probe(url: str, seconds: float, results: Connection) -> None:
    async def probe() -> list[Answered]:
        requests = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in _PROBES]
        loops = [open_loop(url, [request], per_second=20, seconds=seconds) for request in requests]
        return [answer for answers in await asyncio.gather(*loops) for answer in answers]

    results.send(uvloop.run(probe()))


class _Sink(asyncio.Protocol):
    """Reads requests of a known length, and refuses each as soon as it begins."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._left = 0

    def data_received(self, data: bytes) -> None:
        if self._left == 0:
            head, _, body = data.partition(b"\r\n\r\n")
            self._left = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]) - len(body)
            self._transport.write(_REFUSAL)
        else:
            self._left -= len(data)


def _sink(listening: socket.socket) -> None:
    async def sink() -> None:
        server = await asyncio.get_running_loop().create_server(_Sink, sock=listening)
        await server.serve_forever()

    uvloop.run(sink())


if __name__ == "__main__":
    main()
