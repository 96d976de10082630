"""Reads the memory, CPU time, open files and GPU memory of this process, as metrics of Prometheus."""

from __future__ import annotations

import gc
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.process_collector import ProcessCollector


class CudaMemory(Protocol):
    """The functions of `torch.cuda` on memory that are used here."""

    def is_initialized(self) -> bool:
        """Returns whether this process uses a GPU."""

    def device_count(self) -> int:
        """Returns the number of devices."""

    def memory_allocated(self, device: int) -> int:
        """Returns the bytes of tensors on a device."""

    def memory_reserved(self, device: int) -> int:
        """Returns the bytes that PyTorch's allocator holds on a device, tensors included."""

    def mem_get_info(self, device: int) -> tuple[int, int]:
        """Returns the free and the total bytes of a device, whoever uses them."""


class ProcessMetrics:
    """The usual metrics of a process under their usual names, and the number of garbage collections.

    prometheus_client's own collectors know one process only. Their readings are copied into metrics that add up over
    workers.

    Args:
        registry: the registry that shows them.
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
        """Sets the metrics from /proc and the garbage collector; without /proc, only the latter."""
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
    """The memory of the GPUs that this process uses.

    Args:
        registry: the registry that shows the metrics.
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
        """Reads the memory of each device in use. It never touches another GPU, which would take memory there.

        Args:
            cuda: `torch.cuda`, or a substitute in tests.
        """
        if not cuda.is_initialized():
            return
        for index in range(cuda.device_count()):
            reserved = cuda.memory_reserved(index)
            if not reserved:  # not in use here: another question would open a context there
                continue
            device = f"cuda:{index}"
            free, total = cuda.mem_get_info(index)
            self._allocated_bytes.labels(device).set(cuda.memory_allocated(index))
            self._reserved_bytes.labels(device).set(reserved)
            self._free_bytes.labels(device).set(free)
            self._total_bytes.labels(device).set(total)
