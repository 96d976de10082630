"""Levels rather than events: what is looked at once a second, and again when somebody scrapes.

event loop: what is pending, queue depth, readiness, its own lag; a thread: the process, the garbage collector, the GPU
-> plain `set` of plain gauges, which each of several workers can do for itself and prometheus_client adds up
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import Counter as Tally
from typing import Final, Protocol

import torch
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.process_collector import ProcessCollector

from app.errors import PredictorError
from app.service import Service

logger = logging.getLogger(__name__)

_INTERVAL_S: Final = 1.0


class CudaMemory(Protocol):
    """What `torch.cuda` tells of memory."""

    def is_initialized(self) -> bool:
        """Whether this process uses a GPU."""

    def device_count(self) -> int:
        """How many there are."""

    def memory_allocated(self, device: int) -> int:
        """Bytes of tensors."""

    def memory_reserved(self, device: int) -> int:
        """Bytes that the caching allocator holds, tensors included."""

    def mem_get_info(self, device: int) -> tuple[int, int]:
        """Free and total bytes of the device, whoever uses them."""


class Sampler:
    """Sets the gauges of a service.

    Args:
        service: what is looked at.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._process = ProcessMetrics(service.metrics.registry)
        self._gpu = GpuMetrics(service.metrics.registry)
        self._models: set[str] = set()

    async def run(self) -> None:
        """Samples until it is cancelled."""
        looking = asyncio.ensure_future(asyncio.to_thread(self.sample_process))
        while True:
            self.sample_service()
            due_at = time.monotonic() + _INTERVAL_S
            await asyncio.sleep(_INTERVAL_S)
            self._service.metrics.event_loop_lag_seconds.observe(max(0.0, time.monotonic() - due_at))
            if looking.done():  # a driver in trouble may take long: nothing else waits for it
                looking = asyncio.ensure_future(asyncio.to_thread(self.sample_process))

    def sample_service(self) -> None:
        """Looks at the service; fast, and of the event loop."""
        metrics, registry, admission = self._service.metrics, self._service.registry, self._service.admission
        metrics.pending_images.set(admission.pending_images)
        metrics.pending_bytes.set(admission.pending_bytes)
        depths: Tally[str] = Tally()
        for model in registry.served:  # several versions of one count together
            depths[model.artifact.name] += model.pipeline.queue_depth
        self._models |= set(depths)
        for name in self._models:  # one that serves no more has none that wait
            metrics.queue_depth.labels(name).set(depths[name])
        try:
            self._service.check_ready()
        except PredictorError:
            metrics.ready.set(0)
        else:
            metrics.ready.set(1)

    def sample_process(self) -> None:
        """Looks at the process and the GPU; whatever fails is only not known."""
        try:
            self._process.sample()
            self._gpu.sample(torch.cuda)
        except Exception as error:
            logger.debug("The process could not be looked at: %s", error)


class ProcessMetrics:
    """The usual metrics of a process, under their usual names, and what the garbage collector did.

    prometheus_client's own collectors know one process only; their readings are copied, and add up over workers.

    Args:
        registry: where they are shown.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._collector = ProcessCollector(registry=None)
        self._gauges = {
            "process_resident_memory_bytes": Gauge(
                "process_resident_memory_bytes",
                "Resident memory in bytes, of all workers",
                multiprocess_mode="livesum",
                registry=registry,
            ),
            "process_open_fds": Gauge(
                "process_open_fds",
                "Open file descriptors, of the worker that has most",
                multiprocess_mode="livemax",
                registry=registry,
            ),
            "process_max_fds": Gauge(
                "process_max_fds",
                "Most file descriptors that a worker may open",
                multiprocess_mode="livemin",
                registry=registry,
            ),
            "process_start_time_seconds": Gauge(
                "process_start_time_seconds",
                "Start of the youngest worker, in seconds since the epoch",
                multiprocess_mode="livemax",
                registry=registry,
            ),
        }
        self._cpu_seconds = Counter(
            "process_cpu_seconds_total", "Processor time, user and system, of all workers", registry=registry
        )
        self._gc_collections = Counter(
            "python_gc_collections_total", "Garbage collections, by generation", ["generation"], registry=registry
        )
        self._seen_cpu_seconds = 0.0
        self._seen_collections = [0, 0, 0]

    def sample(self) -> None:
        """Reads /proc; where there is none, nothing is shown."""
        for family in self._collector.collect():
            for sample in family.samples:
                if sample.name in self._gauges:
                    self._gauges[sample.name].set(sample.value)
                elif sample.name == "process_cpu_seconds_total":
                    self._cpu_seconds.inc(max(0.0, sample.value - self._seen_cpu_seconds))
                    self._seen_cpu_seconds = sample.value
        for generation, statistics in enumerate(gc.get_stats()):
            collections = statistics["collections"]
            self._gc_collections.labels(str(generation)).inc(collections - self._seen_collections[generation])
            self._seen_collections[generation] = collections


class GpuMetrics:
    """The memory of the GPUs, where this process uses one.

    Args:
        registry: where they are shown.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._allocated_bytes = Gauge(
            "predictor_gpu_allocated_bytes",
            "GPU memory of tensors, of all workers",
            ["device"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._reserved_bytes = Gauge(
            "predictor_gpu_reserved_bytes",
            "GPU memory that PyTorch holds, tensors included, of all workers",
            ["device"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._free_bytes = Gauge(
            "predictor_gpu_free_bytes",
            "GPU memory that nobody uses",
            ["device"],
            multiprocess_mode="livemin",
            registry=registry,
        )
        self._total_bytes = Gauge(
            "predictor_gpu_total_bytes",
            "GPU memory there is",
            ["device"],
            multiprocess_mode="livemax",
            registry=registry,
        )

    def sample(self, cuda: CudaMemory) -> None:
        """Reads the memory of each device; never the first to touch a GPU, which would take memory there.

        Args:
            cuda: `torch.cuda`, or a stand-in.
        """
        if not cuda.is_initialized():
            return
        for index in range(cuda.device_count()):
            reserved = cuda.memory_reserved(index)
            if not reserved:  # a device of others: asking it for more would open a context there
                continue
            device = f"cuda:{index}"
            free, total = cuda.mem_get_info(index)
            self._allocated_bytes.labels(device).set(cuda.memory_allocated(index))
            self._reserved_bytes.labels(device).set(reserved)
            self._free_bytes.labels(device).set(free)
            self._total_bytes.labels(device).set(total)
