"""How a CPU engine's threads are laid out: several single-threaded streams, one of many threads, or both by turns.

engine -> built for (cores + 1) x 1 and 1 x cores -> measured, busy and alone -> the one that serves

Several single-threaded streams lose least to decoding and to other processes, but leave a lone request one core. Where
all cores together are faster on a batch that is alone, `AdaptiveEngine` gives it them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.settings import ModelSettings

SPARE_STREAMS: Final = 1
"""Single-threaded streams beyond one a core: they compute while others hand over or wait for Python's lock, which left
two cores idle for 8 % of the time (docs/performance.md). On one core they cost small networks a fifth."""


@dataclass(frozen=True)
class ThreadLayout:
    """How many batches are computed at once, and by how many CPU threads each.

    Attributes:
        streams: batches at once.
        threads_per_stream: threads of each.
    """

    streams: int
    threads_per_stream: int

    def __str__(self) -> str:
        return f"{self.streams} x {self.threads_per_stream} threads"


@dataclass(frozen=True)
class MeasuredLayout:
    """What a layout was measured to do.

    Attributes:
        layout: of the chosen engine.
        images_per_s: with all streams busy.
        lone_batch_ms: that a batch of one image takes when nothing else is computed.
    """

    layout: ThreadLayout
    images_per_s: float
    lone_batch_ms: float


@dataclass(frozen=True)
class LayoutChoice:
    """What serves.

    Attributes:
        layout: of busy times.
        lone_threads: that compute a batch when nothing else is computed.
        measured: all that was measured; empty where there was no choice.
    """

    layout: ThreadLayout
    lone_threads: int
    measured: tuple[MeasuredLayout, ...] = ()

    @property
    def is_adaptive(self) -> bool:
        """Whether a batch that is alone is computed by more threads than others."""
        return self.lone_threads != self.layout.threads_per_stream


def possible_layouts(settings: ModelSettings, device_type: str, *, device_count: int = 1) -> tuple[ThreadLayout, ...]:
    """Returns the layouts that the settings leave open, the one in which engines are compared first.

    Args:
        settings: streams, threads and cores.
        device_type: such as `cpu`.
        device_count: GPUs.
    """
    streams, threads, cores = settings.streams, settings.threads_per_stream, settings.core_count
    if device_type != "cpu":
        # While one stream computes, the other copies.
        return (ThreadLayout(streams or 2 * device_count, threads or 1),)
    if streams or threads:
        return (ThreadLayout(streams or max(1, cores // threads), threads or max(1, cores // streams)),)
    return (ThreadLayout(cores + SPARE_STREAMS, 1), ThreadLayout(1, cores)) if cores > 1 else (ThreadLayout(1, 1),)
