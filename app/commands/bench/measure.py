"""The command `bench`: measures a model on this machine step by step, and says what limits it.

images -> decode | resize | engines by layout and batch | the pipeline | over HTTP -> a table, the limit, the settings
"""

from __future__ import annotations

import asyncio
import io
import itertools
import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from app.commands.bench.http_load import closed_loop, own_server, per_second, post
from app.commands.bench.rate import rate_of
from app.commands.bench.report import EngineRate, Findings, Loop, conclusions, table
from app.commands.find_images import UnreadableFileError, find_images
from app.errors import ArtifactError, ImageError
from app.images.decode import decode
from app.inference.artifact import Artifact
from app.inference.devices import resolve_devices
from app.inference.engine import UnavailableError
from app.inference.engine_choice import possible_engines
from app.inference.golden_check import grey_image, warm_up
from app.inference.prepare import prepare
from app.inference.thread_layout import ThreadLayout, busy_layout, lone_layout
from app.models.registry import Registry
from app.models.served_model import ServedModel
from app.settings import ModelSettings
from app.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_MAX_IMAGES = 32
_CONNECTIONS_PER_CORE = 4  # enough that streams and decoders never wait for a client


def bench(settings: ModelSettings, paths: Sequence[Path], *, seconds: float) -> None:
    """Measures the first model of the settings and prints what was found.

    Args:
        settings: the settings of the service to measure.
        paths: image files, and folders of them. Without any, the model's golden images are used, or else a made-up
            photo.
        seconds: how long decoding and each loop of requests is measured. Each engine is measured half as long.

    Raises:
        UnreadableFileError: a path does not exist, is not an image that can be decoded, or is a folder without images.
        NotReadyError: the model cannot be used.
        LoadError: the service did not start.
    """
    settings = settings.model_copy(update={"model": settings.model_references[0]})
    files = find_images(paths).images if paths else []
    if paths and not files:
        raise UnreadableFileError(f"There are no images in {', '.join(map(str, paths))}.")
    images = [_read(path, settings) for path in files[:_MAX_IMAGES]]
    progress = Console(stderr=True)
    registry = Registry(settings, Metrics(), max_queue_items=1024)
    try:
        with progress.status("Starting") as status:
            say = status.update if progress.is_terminal else partial(progress.print, soft_wrap=True, highlight=False)
            findings, title = asyncio.run(_measure(registry, settings, images, seconds, say))
    finally:
        registry.close()
    console = Console()
    console.print(table(findings, title))
    console.print(*conclusions(findings), sep="\n", soft_wrap=True, highlight=False)


def _read(path: Path, settings: ModelSettings) -> bytes:
    try:
        encoded = path.read_bytes()
        decode(encoded, limits=settings.image_limits)
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be read: {error.strerror}.") from error
    except ImageError as error:
        raise UnreadableFileError(f"{path} cannot be measured with: {error.detail}") from error
    return encoded


async def _measure(
    registry: Registry, settings: ModelSettings, images: Sequence[bytes], seconds: float, say: Callable[[str], None]
) -> tuple[Findings, str]:
    say(f"Loading {registry.deployments[0].reference}: its engine is built and checked")
    await registry.load_all()
    model = registry.get()
    artifact = model.artifact
    images = images or [example.image for example in artifact.golden] or [synthetic_photo()]
    at_once = (1, _CONNECTIONS_PER_CORE * settings.core_count)
    say("Measuring decoding and resizing")
    decode_ms, resize_ms = await asyncio.to_thread(_decode_and_resize, artifact, images, settings, seconds)
    engines = await asyncio.to_thread(lambda: tuple(_engine_rates(model, settings, seconds / 2, say)))
    pipeline = []
    for count in at_once:
        say(f"Measuring all steps in this process, {count} at once")
        pipeline.append(await _pipeline_loop(model, images, count, seconds))
    await asyncio.to_thread(model.pipeline.close)  # so that it takes no cores from the server
    say("Starting the service in a process of its own")
    http = []
    with own_server(dict(settings)) as server:
        await asyncio.to_thread(server.wait_until_ready)
        requests = [post(image) for image in images]
        await closed_loop(server.url, requests, connections=at_once[-1], seconds=seconds / 4)  # warms up
        for count in at_once:
            say(f"Measuring the service over HTTP, {count} at once")
            answers = await closed_loop(server.url, requests, connections=count, seconds=seconds)
            http.append(_loop(count, per_second(answers), [answer.latency_s for answer in answers]))
    sizes = sorted({f"{decoded.width} x {decoded.height}" for decoded in map(decode, images[:4])})
    title = f"{artifact.name}/{artifact.version} on {model.engine.device}, {settings.core_count} cores; " \
            f"{len(images)} images ({', '.join(sizes)}{', ...' if len(images) > 4 else ''})"  # fmt: skip
    has_gpu = model.engine.device != "cpu"
    cores = settings.core_count
    return Findings(decode_ms, resize_ms, engines, tuple(pipeline), tuple(http), cores, has_gpu), title


def _decode_and_resize(
    artifact: Artifact, images: Sequence[bytes], settings: ModelSettings, seconds: float
) -> tuple[float, float]:
    """Returns the median milliseconds that decoding takes on one thread, and those that resizing takes."""
    decode_s, resize_s = [], []
    until = time.perf_counter() + seconds
    for number, encoded in enumerate(itertools.cycle(images)):
        if number >= len(images) and time.perf_counter() > until:
            break
        image = prepare(encoded, artifact, settings.precision, settings.image_limits)
        decode_s.append(image.decode_s)
        resize_s.append(image.resize_s)
    return 1000 * statistics.median(decode_s), 1000 * statistics.median(resize_s)


def _engine_rates(
    model: ServedModel, settings: ModelSettings, seconds: float, say: Callable[[str], None]
) -> Iterator[EngineRate]:
    """Measures every engine in the first layout, and the chosen one also in the others and in a lower precision."""
    artifact, devices = model.artifact, resolve_devices(settings.device)
    first, other = busy_layout(settings, devices), lone_layout(settings, devices)
    chosen = {"engine": model.engine.name}
    turns: list[tuple[ThreadLayout, dict[str, str]]] = [(first, {})]
    if other:
        turns.append((other, chosen))
    if settings.precision == "float32":
        turns.append((first, chosen | {"precision": "bfloat16"}))
    grey = grey_image(artifact)
    for layout, changes in turns:
        varied = settings.model_copy(update=changes)
        for name, build in possible_engines(artifact, devices, varied).items():
            what = f"{name} in {varied.precision}, {layout}"
            say(f"Building {what}")
            try:
                engine = build(layout)
                warm_up(artifact, engine, settings.max_batch_size)
            except (UnavailableError, ArtifactError) as error:
                logger.info("%s is left out: %s", what, error)
                continue
            for batch_size in sorted({1, settings.max_batch_size}):
                say(f"Measuring {what}, batch {batch_size}")
                streams = min(layout.streams, settings.core_count)
                rate = rate_of(engine, [grey] * batch_size, streams, seconds)
                yield EngineRate(name, varied.precision, layout, batch_size, rate)


async def _pipeline_loop(model: ServedModel, images: Sequence[bytes], at_once: int, seconds: float) -> Loop:
    upcoming = itertools.cycle(images)
    latencies: list[float] = []
    started_at = time.perf_counter()

    async def classify() -> None:
        while time.perf_counter() < started_at + seconds:
            sent_at = time.perf_counter()
            await model.pipeline.classify(next(upcoming), deadline=math.inf)
            latencies.append(time.perf_counter() - sent_at)

    await asyncio.gather(*(classify() for _ in range(at_once)))
    return _loop(at_once, len(latencies) / (time.perf_counter() - started_at), latencies)


def _loop(at_once: int, images_per_s: float, latencies_s: Sequence[float]) -> Loop:
    p50, p99 = 1000 * np.percentile(latencies_s, [50, 99])
    return Loop(at_once, images_per_s, float(p50), float(p99))


def synthetic_photo(width: int = 640, height: int = 480) -> bytes:
    """Returns a JPEG of soft shapes and some noise, which takes as long to decode as a photo.

    Args:
        width: the width in pixels.
        height: the height in pixels.
    """
    generator = np.random.default_rng(0)
    small = Image.fromarray(generator.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8))
    soft = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    noisy = np.clip(soft + generator.normal(0, 8, soft.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=90)
    return file.getvalue()
