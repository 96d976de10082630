"""Says how the threads of an engine are laid out. It follows from the device and the settings, not from a measurement.

Several streams of one thread lose least to decoding and to other processes, but a batch that is alone gets one core
only. `AdaptiveEngine` gives it all of them, unless the network is so small that this would gain nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.inference.devices import device_type
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


def busy_layout(settings: ModelSettings, devices: tuple[str, ...]) -> ThreadLayout:
    """Returns the layout in which several batches are computed at once.

    Args:
        settings: the settings of streams, threads and cores.
        devices: the devices to compute on.
    """
    streams, threads, cores = settings.streams, settings.threads_per_stream, settings.core_count
    if device_type(devices[0]) != "cpu":
        # While one stream computes, the other copies.
        return ThreadLayout(streams or 2 * len(devices), threads or 1)
    if streams or threads:
        return ThreadLayout(streams or max(1, cores // threads), threads or max(1, cores // streams))
    return ThreadLayout(cores + SPARE_STREAMS if cores > 1 else 1, 1)


def lone_layout(settings: ModelSettings, devices: tuple[str, ...]) -> ThreadLayout | None:
    """Returns the layout in which a batch is computed that is alone; None if it is the same as in a busy service.

    Args:
        settings: the settings of streams, threads and cores.
        devices: the devices to compute on.
    """
    is_set = settings.streams or settings.threads_per_stream
    cores = settings.core_count
    return ThreadLayout(1, cores) if device_type(devices[0]) == "cpu" and not is_set and cores > 1 else None
