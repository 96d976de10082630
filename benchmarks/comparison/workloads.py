"""Lists what is measured, and the targets that we mean to reach."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """One row of the results.

    Attributes:
        name: the row's name in `results.json`.
        title: the row's name in the tables.
        model: the name of a model in the benchmark's store.
        image: the name of an image in the benchmark's folder.
        connections: the connections of the closed loop.
        precision: the precision of our engine; peers compute in float32.
        min_ratio_to_peer: the target for our requests/s, divided by the best peer's; None: no target.
        max_latency_ratio: the target for our median latency, divided by the best peer's; None: no target.
        min_ratio_to_ceiling: the target for our requests/s, divided by the in-process loop's; None: no target.
        max_latency_over_ceiling_ms: the target for our median latency, less the in-process loop's; None: no target.
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
        """Whether peers run the workload; if not, ours is compared with their figures of the same load in float32."""
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
    """Returns the workload and, if only we run it, also the same load in float32, which peers run."""
    load = (workload.model, workload.image, workload.connections)
    return [
        other
        for other in WORKLOADS
        if other == workload
        or (not workload.with_peers and other.with_peers and (other.model, other.image, other.connections) == load)
    ]
