"""Gauges show the state of the service, the process and the GPU."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from app.serving.service import Phase, Service
from app.settings import Settings
from app.telemetry.process_metrics import GpuMetrics, ProcessMetrics
from tests.support.colours import StartApp


class FakeCuda:
    """Two GPUs, of which this process uses the second."""

    def __init__(self, *, initialized: bool = True) -> None:
        self.initialized = initialized

    def is_initialized(self) -> bool:
        return self.initialized

    def device_count(self) -> int:
        return 2

    def memory_allocated(self, device: int) -> int:
        return 300 * device

    def memory_reserved(self, device: int) -> int:
        return 400 * device

    def mem_get_info(self, device: int) -> tuple[int, int]:
        assert device == 1, "a device that is not ours was touched"
        return 600, 1000


def test_gpu_memory_is_that_of_the_devices_in_use() -> None:
    registry = CollectorRegistry()
    GpuMetrics(registry).sample(FakeCuda())

    kinds = ("allocated", "reserved", "free", "total")
    values = [registry.get_sample_value(f"predictor_gpu_{kind}_bytes", {"device": "cuda:1"}) for kind in kinds]
    assert values == [300, 400, 600, 1000]
    assert registry.get_sample_value("predictor_gpu_free_bytes", {"device": "cuda:0"}) is None


def test_a_gpu_is_never_touched_first_by_looking_at_it() -> None:
    registry = CollectorRegistry()
    GpuMetrics(registry).sample(FakeCuda(initialized=False))

    assert registry.get_sample_value("predictor_gpu_free_bytes", {"device": "cuda:1"}) is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_process_metrics_are_those_of_this_process() -> None:
    registry = CollectorRegistry()
    process = ProcessMetrics(registry)
    gc.collect()  # what other tests have left open is closed now, not between the two looks
    process.sample()
    open_fds = registry.get_sample_value("process_open_fds") or 0
    with open(os.devnull), open(os.devnull):
        process.sample()
        # Reading the folder opens it, both times.
        assert registry.get_sample_value("process_open_fds") == open_fds + 2

    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident = registry.get_sample_value("process_resident_memory_bytes")
    assert resident == pytest.approx(pages * os.sysconf("SC_PAGE_SIZE"), rel=0.05)
    assert (registry.get_sample_value("process_cpu_seconds_total") or 0) == pytest.approx(sum(os.times()[:2]), abs=0.5)
    collections = registry.get_sample_value("python_gc_collections_total", {"generation": "2"})
    assert collections == gc.get_stats()[2]["collections"]


def test_queue_and_readiness_are_shown_as_they_are_when_scraped(start_app: StartApp) -> None:
    client = start_app()
    assert 'predictor_queue_depth{model="colours"} 0.0' in client.get("/metrics").text
    assert "predictor_ready 1.0" in client.get("/metrics").text

    service: Service = client.app.state.service  # type: ignore[attr-defined]
    service.phase = Phase.DRAINING
    assert "predictor_ready 0.0" in client.get("/metrics").text


def test_service_without_a_model_is_shown_as_not_ready(tmp_path: Path) -> None:
    service = Service(Settings(model_store=tmp_path))
    service.gauges.sample_service()

    assert service.metrics.registry.get_sample_value("predictor_ready") == 0
