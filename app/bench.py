"""What a model does on this machine, step by step, and what limits it: `python -m app bench`.

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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from app.artifact import Artifact
from app.decode import decode
from app.engine import Precision, UnavailableError, resolve_devices
from app.engine_choice import possible_engines
from app.errors import ImageError
from app.golden import grey_image, warm_up
from app.http_load import closed_loop, own_server
from app.layout import Layout, possible_layouts, rate_of
from app.metrics import Metrics
from app.pipeline import MIN_DETAIL
from app.predict import UnreadableFileError, find_images
from app.registry import Registry, ServedModel
from app.resize import resize_and_crop
from app.settings import ModelSettings

logger = logging.getLogger(__name__)

_MAX_IMAGES = 32
_CONNECTIONS_PER_CORE = 4  # enough that streams and decoders never wait for a client
_OVERHEAD_LIMIT = 0.75  # of the pipeline's rate: below it, HTTP costs more than noise


@dataclass(frozen=True)
class EngineRate:
    """Images a second of an engine alone.

    Attributes:
        engine: its name.
        precision: of the computation.
        layout: of its threads.
        batch_size: of every batch.
        images_per_s: all streams busy.
    """

    engine: str
    precision: Precision
    layout: Layout
    batch_size: int
    images_per_s: float

    @property
    def options(self) -> str:
        """The settings that give this."""
        layout = f"--streams {self.layout.streams} --threads-per-stream {self.layout.threads_per_stream}"
        return f"--engine {self.engine} --precision {self.precision} {layout}"


@dataclass(frozen=True)
class Loop:
    """A closed loop of requests.

    Attributes:
        at_once: requests under way.
        images_per_s: answered.
        p50_ms: the median latency.
        p99_ms: the latency that 1 in 100 exceeds.
    """

    at_once: int
    images_per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Findings:
    """All that was measured.

    Attributes:
        decode_ms: of an image, on one thread; the median.
        resize_ms: likewise; 0 for a model that resizes by itself.
        engines: alone.
        pipeline: decode, resize and inference in one process.
        http: the whole service.
        cores: that were used.
    """

    decode_ms: float
    resize_ms: float
    engines: tuple[EngineRate, ...]
    pipeline: tuple[Loop, ...]
    http: tuple[Loop, ...]
    cores: int


def bench(settings: ModelSettings, paths: Sequence[Path], *, seconds: float) -> None:
    """Measures the first model of the settings and prints what was found.

    Args:
        settings: as of the service to be.
        paths: images, and folders of them; without any, the model's golden examples.
        seconds: of each of about a dozen measurements.

    Raises:
        UnreadableFileError: a path does not exist, or is no image that can be decoded.
        NotReadyError: the model cannot be used.
        LoadError: the service did not start.
    """
    settings = settings.model_copy(update={"model": settings.model_references[0]})
    images = [_read(path, settings) for path in find_images(paths)[:_MAX_IMAGES]]
    console = Console()
    with console.status("Loading the model"):
        registry = Registry(settings, Metrics(), max_queue_items=1024)
    try:
        with console.status("Measuring") as status:
            findings, title = asyncio.run(_measure(registry, settings, images, seconds, status.update))
    finally:
        registry.close()
    console.print(_table(findings, title))
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
    await registry.load_all()
    model = registry.get()
    artifact = model.artifact
    images = images or [example.image for example in artifact.golden] or [synthetic_photo()]
    at_once = (1, _CONNECTIONS_PER_CORE * settings.core_count)
    say("Decoding and resizing")
    decode_ms, resize_ms = await asyncio.to_thread(_decode_and_resize, artifact, images, settings, seconds)
    say("The engines")
    engines = await asyncio.to_thread(lambda: tuple(_engine_rates(artifact, settings, seconds / 2)))
    say("The pipeline")
    pipeline = [await _pipeline_loop(model, images, count, seconds) for count in at_once]
    say("The service, over HTTP")
    await asyncio.to_thread(model.pipeline.close)  # so that it takes nothing from the server
    with own_server(settings) as url:
        await closed_loop(url, images, connections=at_once[-1], seconds=seconds / 4)  # warms up
        http = [_loop(count, *await closed_loop(url, images, connections=count, seconds=seconds)) for count in at_once]
    sizes = sorted({f"{decoded.width} x {decoded.height}" for decoded in map(decode, images[:4])})
    title = f"{artifact.name}/{artifact.version} on {model.engine.device}, {settings.core_count} cores; " \
            f"{len(images)} images ({', '.join(sizes)}{', ...' if len(images) > 4 else ''})"  # fmt: skip
    return Findings(decode_ms, resize_ms, engines, tuple(pipeline), tuple(http), settings.core_count), title


def _decode_and_resize(
    artifact: Artifact, images: Sequence[bytes], settings: ModelSettings, seconds: float
) -> tuple[float, float]:
    """Returns the median milliseconds of each on one thread."""
    decode_s, resize_s = [], []
    resize_size, image_size = artifact.resize_size, artifact.image_size
    until = time.perf_counter() + seconds
    for number, encoded in enumerate(itertools.cycle(images)):
        if number >= len(images) and time.perf_counter() > until:
            break
        started_at = time.perf_counter()
        if resize_size is None or image_size is None:
            decode(encoded, limits=settings.image_limits).to_tensor()
            decode_s.append(time.perf_counter() - started_at)
            continue
        decoded = decode(encoded, limits=settings.image_limits, min_shorter_side=MIN_DETAIL * resize_size)
        decoded_at = time.perf_counter()
        resize_and_crop(decoded, resize_size=resize_size, image_size=image_size)
        decode_s.append(decoded_at - started_at)
        resize_s.append(time.perf_counter() - decoded_at)
    return 1000 * statistics.median(decode_s), 1000 * statistics.median(resize_s or [0.0])


def _engine_rates(artifact: Artifact, settings: ModelSettings, seconds: float) -> Iterator[EngineRate]:
    devices = resolve_devices(settings.device)
    layouts = possible_layouts(settings, devices[0].type, device_count=len(devices))
    extra: list[tuple[Precision, Layout]] = [("bfloat16", layouts[0])] if settings.precision == "float32" else []
    grey = grey_image(artifact)
    # The lower precision in the first layout only, which is enough to see what it would gain.
    for precision, layout in [*((settings.precision, layout) for layout in layouts), *extra]:
        chosen = settings.model_copy(update={"precision": precision})
        for name, build in possible_engines(artifact, devices, chosen).items():
            try:
                engine = build(layout)
            except UnavailableError as error:
                logger.info("%s in %s is left out: %s", name, precision, error)
                continue
            warm_up(artifact, engine, settings.max_batch_size)
            for batch_size in sorted({1, settings.max_batch_size}):
                rate = rate_of(engine, [grey] * batch_size, layout.streams, seconds)
                yield EngineRate(name, precision, layout, batch_size, rate)


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
    """Returns a JPEG that costs what a photo costs: soft shapes and some noise."""
    generator = np.random.default_rng(0)
    small = Image.fromarray(generator.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8))
    soft = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    noisy = np.clip(soft + generator.normal(0, 8, soft.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=90)
    return file.getvalue()


def conclusions(findings: Findings) -> list[str]:
    """Returns what the figures mean: the limit, and the settings to use."""
    same_precision = [each for each in findings.engines if each.precision == findings.engines[0].precision]
    best = max(same_precision, key=lambda each: each.images_per_s)
    pipeline, http = findings.pipeline[-1].images_per_s, findings.http[-1].images_per_s
    preparing = 1000 * findings.cores / (findings.decode_ms + findings.resize_ms)
    alone = (
        f"alone, decoding would allow {preparing:.0f} images/s on {findings.cores} cores, "
        f"inference {best.images_per_s:.0f}"
    )
    if http < _OVERHEAD_LIMIT * pipeline:
        limit = (
            f"HTTP: {http:.0f} images/s over it and {pipeline:.0f} without, though the load's client took its share "
            "of the cores. Serve from several processes"
        )
    elif preparing < best.images_per_s:
        limit = f"decoding: {alone}. Send smaller images, or JPEG rather than PNG; a GPU would not help"
    else:
        limit = f"inference: {alone}. A smaller model, a lower precision or a GPU would help"
    lines = [
        f"The limit is {limit}.",
        f"The fastest engine: {best.options}. Without these options, the service measures for itself when it loads.",
    ]
    if lower := [each for each in findings.engines if each.precision != best.precision]:
        fastest = max(lower, key=lambda each: each.images_per_s)
        if fastest.images_per_s > best.images_per_s:
            factor = fastest.images_per_s / best.images_per_s
            lines.append(f"--precision {fastest.precision}: {factor:.1f} times as fast an engine, and less exact.")
    return lines


def _table(findings: Findings, title: str) -> Table:
    table = Table("Step", "How", "Images/s", "p50 ms", "p99 ms", title=title)
    table.add_row("decode", "one thread", f"{1000 / findings.decode_ms:.0f}", f"{findings.decode_ms:.2f}", "")
    if findings.resize_ms:
        table.add_row("resize", "one thread", f"{1000 / findings.resize_ms:.0f}", f"{findings.resize_ms:.2f}", "")
    for each in findings.engines:
        how = f"{each.layout.streams} x {each.layout.threads_per_stream} threads, batch {each.batch_size}"
        table.add_row(f"{each.engine} {each.precision}", how, f"{each.images_per_s:.0f}", "", "")
    for step, loops in (("in process", findings.pipeline), ("HTTP", findings.http)):
        for loop in loops:
            table.add_row(
                step, f"{loop.at_once} at once", f"{loop.images_per_s:.0f}", f"{loop.p50_ms:.1f}", f"{loop.p99_ms:.1f}"
            )
    return table
