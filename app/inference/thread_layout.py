"""Thread layouts of a CPU engine: several streams of one thread, one stream of many threads, or both in turn.

engine -> built for (cores + 1) x 1 and 1 x cores -> each measured, busy and alone -> the one that serves

Several streams of one thread lose least to decoding and to other processes, but a batch that is alone gets one core
only. Where all cores together compute such a batch faster, `AdaptiveEngine` gives them to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.settings import ModelSettings

SPARE_STREAMS: Final = 1
"""How many single-threaded streams there are beyond one for each core.

They compute while others hand over their results or wait for Python's lock, which left two cores idle for 8 % of the
time (benchmarks/NOTES.md). On one core they cost small networks a fifth.
"""


@dataclass(frozen=True)
class ThreadLayout:
    """How many batches are computed at once, and by how many CPU threads each.

    Attributes:
        streams: how many batches are computed at once.
        threads_per_stream: how many CPU threads compute each batch.
    """

    streams: int
    threads_per_stream: int

    def __str__(self) -> str:
        return f"{self.streams} x {self.threads_per_stream} threads"


@dataclass(frozen=True)
class MeasuredLayout:
    """How fast the chosen engine was measured to be in one layout.

    Attributes:
        layout: the layout that was measured.
        images_per_s: images a second with all streams busy.
        lone_batch_ms: milliseconds that a batch of one image takes when nothing else is computed.
    """

    layout: ThreadLayout
    images_per_s: float
    lone_batch_ms: float


@dataclass(frozen=True)
class LayoutChoice:
    """The layout that serves.

    Attributes:
        layout: the layout that computes several batches at once.
        lone_threads: how many threads compute a batch when nothing else is computed.
        measured: the layouts that were measured; empty where there was no choice.
    """

    layout: ThreadLayout
    lone_threads: int
    measured: tuple[MeasuredLayout, ...] = ()

    @property
    def is_adaptive(self) -> bool:
        """Whether a batch that is alone is computed by more threads than others."""
        return self.lone_threads != self.layout.threads_per_stream


def possible_layouts(settings: ModelSettings, device_type: str, *, device_count: int = 1) -> tuple[ThreadLayout, ...]:
    """Returns the layouts that the settings allow. The first one is the one in which engines are compared.

    Args:
        settings: the settings of streams, threads and cores.
        device_type: the type of the devices as torch names it, such as `cpu`.
        device_count: how many devices there are.
    """
    streams, threads, cores = settings.streams, settings.threads_per_stream, settings.core_count
    if device_type != "cpu":
        # While one stream computes, the other copies.
        return (ThreadLayout(streams or 2 * device_count, threads or 1),)
    if streams or threads:
        return (ThreadLayout(streams or max(1, cores // threads), threads or max(1, cores // streams)),)
    return (ThreadLayout(cores + SPARE_STREAMS, 1), ThreadLayout(1, cores)) if cores > 1 else (ThreadLayout(1, 1),)
