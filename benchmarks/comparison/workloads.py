"""What is measured, and what we mean to reach."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """One row of the results.

    Attributes:
        name: in `results.json`.
        title: in the tables.
        model: in the benchmark's store.
        image: in the benchmark's folder.
        connections: of the closed loop.
        precision: of our engine; peers compute in float32.
        min_ratio_to_peer: of requests/s, ours to the best peer's.
        max_latency_ratio: of median latencies, likewise; where latency is what counts.
        min_ratio_to_ceiling: of requests/s, ours to those of the in-process loop.
        max_latency_over_ceiling_ms: of median latencies, ours less the in-process loop's.
    """

    name: str
    title: str
    model: str
    image: str
    connections: int
    precision: str = "float32"
    min_ratio_to_peer: float | None = None
    max_latency_ratio: float | None = None
    min_ratio_to_ceiling: float | None = None
    max_latency_over_ceiling_ms: float | None = None

    @property
    def with_peers(self) -> bool:
        """Whether peers run it; else their figures of the same load in float32 are what ours are compared with."""
        return self.precision == "float32"


WORKLOADS = (
    Workload(
        "photo-c16", "640x480 JPEG, EfficientNet-Lite0, c=16", "imagenet", "photo-640x480.jpg", 16,
        min_ratio_to_peer=3, min_ratio_to_ceiling=0.85,
    ),
    Workload(
        "photo-c1", "640x480 JPEG, EfficientNet-Lite0, c=1", "imagenet", "photo-640x480.jpg", 1,
        max_latency_ratio=0.5, max_latency_over_ceiling_ms=2,
    ),
    Workload(
        "12mp-c16", "12 MP JPEG, EfficientNet-Lite0, c=16", "imagenet", "photo-12mp.jpg", 16,
        min_ratio_to_peer=12, min_ratio_to_ceiling=0.85,
    ),
    Workload(
        "photo-bf16-c16", "640x480 JPEG, EfficientNet-Lite0 in bfloat16, c=16", "imagenet", "photo-640x480.jpg", 16,
        "bfloat16", min_ratio_to_peer=5, min_ratio_to_ceiling=0.85,
    ),
    Workload(
        "icon-c32", "32x32 PNG, 3-block CNN, c=32", "simple-cnn", "icon-32x32.png", 32,
        min_ratio_to_peer=2, min_ratio_to_ceiling=0.5,
    ),
    Workload(
        "resnet50-c16", "640x480 JPEG, ResNet-50, c=16", "resnet50", "photo-640x480.jpg", 16,
        min_ratio_to_peer=1.5, min_ratio_to_ceiling=0.9,
    ),
)  # fmt: skip
MAX_P99_TO_P50 = 3.0
MAX_READY_S = 6.0
MAX_MEMORY_GROWTH = 1.05


def compared_runs(workload: Workload) -> list[Workload]:
    """Returns the workload, and of one that only we run also the same load in float32, which peers run."""
    load = (workload.model, workload.image, workload.connections)
    return [
        other
        for other in WORKLOADS
        if other == workload
        or (not workload.with_peers and other.with_peers and (other.model, other.image, other.connections) == load)
    ]
