"""Says what `bench` has found: a table, what limits the model on this machine, and the settings to use.

Findings -> table, conclusions
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rich.table import Table

from app.inference.engine import Precision
from app.inference.thread_layout import ThreadLayout

_CAPTION: Final = "M x N threads: M batches are computed at once, each by N threads."
_OVERHEAD_LIMIT: Final = 0.75  # of the rate without HTTP: below it, HTTP costs more than noise


@dataclass(frozen=True)
class EngineRate:
    """How fast an engine is on its own, without decoding.

    Attributes:
        engine: the engine's name.
        precision: the precision of the computation.
        layout: how the engine's threads are laid out.
        batch_size: how many images each batch has.
        images_per_s: images a second with all streams busy.
    """

    engine: str
    precision: Precision
    layout: ThreadLayout
    batch_size: int
    images_per_s: float

    @property
    def options(self) -> str:
        """The options of the command line that choose this engine."""
        layout = f"--streams {self.layout.streams} --threads-per-stream {self.layout.threads_per_stream}"
        return f"--engine {self.engine} --precision {self.precision} {layout}"


@dataclass(frozen=True)
class Loop:
    """A closed loop of requests: each client waits for its answer before it sends the next image.

    Attributes:
        at_once: how many requests are under way at once.
        images_per_s: images that are answered in a second.
        p50_ms: the median latency in milliseconds.
        p99_ms: the latency in milliseconds that 1 request in 100 exceeds.
    """

    at_once: int
    images_per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Findings:
    """All that was measured.

    Attributes:
        decode_ms: milliseconds to decode an image on one thread; the median.
        resize_ms: milliseconds to resize an image on one thread; the median, and 0 for a model that resizes by itself.
        engines: the rates of the engines alone.
        pipeline: loops of decoding, resizing and inference in one process, one request at a time first.
        http: loops through the whole service over HTTP, one request at a time first.
        cores: how many cores were used.
        has_gpu: whether a GPU computed.
    """

    decode_ms: float
    resize_ms: float
    engines: tuple[EngineRate, ...]
    pipeline: tuple[Loop, ...]
    http: tuple[Loop, ...]
    cores: int
    has_gpu: bool = False


def table(findings: Findings, title: str) -> Table:
    """Returns a table of the figures, in the order of the steps that an image takes."""
    rows = Table("Step", "How", "Images/s", "p50 ms", "p99 ms", title=title, caption=_CAPTION)
    rows.add_row("decode", "one thread", _figure(1000 / findings.decode_ms), f"{findings.decode_ms:.2f}", "")
    if findings.resize_ms:
        rows.add_row("resize", "one thread", _figure(1000 / findings.resize_ms), f"{findings.resize_ms:.2f}", "")
    for each in findings.engines:
        how = f"{each.layout}, batch {each.batch_size}"
        rows.add_row(f"{each.engine} {each.precision}", how, _figure(each.images_per_s), "", "")
    for step, loops in (("all in one process", findings.pipeline), ("all over HTTP", findings.http)):
        for loop in loops:
            latencies = (f"{loop.p50_ms:.1f}", f"{loop.p99_ms:.1f}")
            rows.add_row(step, f"{loop.at_once} at once", _figure(loop.images_per_s), *latencies)
    return rows


def conclusions(findings: Findings) -> list[str]:
    """Returns sentences that say what the figures mean: the service's rate, what limits it, and the settings to use."""
    same_precision = [each for each in findings.engines if each.precision == findings.engines[0].precision]
    best = max(same_precision, key=lambda each: each.images_per_s)
    alone, busy = findings.http[0], findings.http[-1]
    lines = [
        f"Over HTTP: {_figure(busy.images_per_s)} images/s with {busy.at_once} requests at once, "
        f"p99 {busy.p99_ms:.0f} ms; one at a time takes {alone.p50_ms:.0f} ms.",
        f"The limit is {_limit(findings, best)}.",
        f"The fastest engine: {best.options}. Without these options, the service measures for itself when it loads.",
    ]
    if lower := [each for each in findings.engines if each.precision != best.precision]:
        fastest = max(lower, key=lambda each: each.images_per_s)
        if fastest.images_per_s > best.images_per_s:
            factor = fastest.images_per_s / best.images_per_s
            lines.append(f"--precision {fastest.precision}: {factor:.1f} times as fast an engine, and less exact.")
    return lines


def _limit(findings: Findings, best: EngineRate) -> str:
    pipeline, http = findings.pipeline[-1].images_per_s, findings.http[-1].images_per_s
    preparing = 1000 * findings.cores / (findings.decode_ms + findings.resize_ms)
    if http < _OVERHEAD_LIMIT * pipeline:
        return (
            f"HTTP: {_figure(http)} images/s over it and {_figure(pipeline)} without, though the load's client took "
            "its share of the cores. Serve from several processes"
        )
    alone = (
        f"alone, decoding would allow {_figure(preparing)} images/s on {findings.cores} cores, "
        f"inference {_figure(best.images_per_s)}"
    )
    if preparing < best.images_per_s:
        gpu = "" if findings.has_gpu else "; a GPU would not help"
        return f"decoding: {alone}. Send smaller images, or JPEG rather than PNG{gpu}"
    ways_out = (
        "A smaller model or a lower precision" if findings.has_gpu else "A smaller model, a lower precision or a GPU"
    )
    return f"inference: {alone}. {ways_out} would help"


def _figure(images_per_s: float) -> str:
    return f"{images_per_s:.0f}" if images_per_s >= 10 else f"{images_per_s:.2g}"
