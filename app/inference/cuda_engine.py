"""TorchScript on NVIDIA GPUs: CUDA graphs of the usual batch sizes, copies that overlap with computing, several GPUs.

batch -> a free stream (GPU, CUDA stream, pinned buffers) -> padded to a captured size -> copy, replay, copy back

One copies while another computes, so that two a GPU keep it busy. Resizing stays on the CPU: JPEGs are decoded there
at a reduced scale, so that what is left to resize is small, and a crop of 224 x 224 is 150 kB to copy.
"""

from __future__ import annotations

import copy
import logging
import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from app.inference.artifact import Artifact
from app.inference.engine import Precision, Probabilities, checked
from app.inference.torchscript_engine import (
    AUTOCAST_DTYPES,
    TorchScriptEngine,
    frozen_classify,
    halving_when_out_of_memory,
)

logger = logging.getLogger(__name__)

# TorchScript profiles two runs and compiles in the third; a capture must find nothing left to compile or to allocate.
_RUNS_BEFORE_CAPTURE = 3

Classify = Callable[[torch.Tensor], torch.Tensor]
Program = Callable[[torch.Tensor, torch.Tensor], None]
"""Classifies all of a pinned `(N, 3, S, S)` into a pinned `(N, C)`, of one N; has ended when it returns."""


def captured_sizes(max_batch_size: int) -> list[int]:
    """Returns the batch sizes that are captured: powers of two, and the largest there is."""
    sizes = [1 << power for power in range(max_batch_size.bit_length()) if 1 << power < max_batch_size]
    return [*sizes, max_batch_size]


@dataclass(frozen=True)
class GpuStream:
    """A way through a GPU, for one batch at a time.

    Attributes:
        programs: by batch size.
        images: pinned uint8 `(N, 3, S, S)`, channels-last; N is the largest size.
        probabilities: pinned float32 `(N, C)`.
    """

    programs: Mapping[int, Program]
    images: torch.Tensor
    probabilities: torch.Tensor

    def classify(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """Classifies a batch in the smallest size that holds it; the rows beyond are left over, and not looked at.

        Args:
            images: each uint8 `(3, S, S)`, at most as many as the largest size.

        Returns:
            `(N, C)`, its own memory.
        """
        count = len(images)
        size = min(size for size in self.programs if size >= count)
        for row, image in zip(self.images, images, strict=False):
            row.copy_(image)
        self.programs[size](self.images[:size], self.probabilities[:size])
        return self.probabilities[:count].clone()


class CudaEngine:
    """Runs an artifact's TorchScript on one or several GPUs.

    Args:
        artifact: a model with `classify`.
        devices: GPUs; each holds the model once.
        precision: a lower one than float32 is autocast.
        streams: batches computed at once, spread over the GPUs; at least one each.
        max_batch_size: of the batches to come.
    """

    name = TorchScriptEngine.name
    warm_up_runs = 1  # all runs that prepare something were made before the graphs were captured

    def __init__(
        self,
        artifact: Artifact,
        devices: Sequence[torch.device],
        *,
        precision: Precision,
        streams: int,
        max_batch_size: int,
    ) -> None:
        if precision == "float32":  # not TF32, torch's default for convolutions, which is 10 bits where float32 has 23
            torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        self.device = ",".join(str(device) for device in devices)
        self.precision: Precision = precision
        self._class_count = len(artifact.class_names)
        models = {device: frozen_classify(copy_of_model(artifact), device) for device in dict.fromkeys(devices)}
        self._gpu_streams = GpuStreams(
            [self._gpu_stream(artifact, models[device], device, max_batch_size) for device in spread(devices, streams)]
        )

    def _gpu_stream(
        self, artifact: Artifact, classify: Classify, device: torch.device, max_batch_size: int
    ) -> GpuStream:
        side = artifact.image_size or 0
        images = torch.empty(
            (max_batch_size, 3, side, side), dtype=torch.uint8, memory_format=torch.channels_last, pin_memory=True
        )
        probabilities = torch.empty((max_batch_size, self._class_count), dtype=torch.float32, pin_memory=True)
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # One for all sizes, of which a stream computes one at a time. The largest comes first: the others fit into it.
        pool = torch.cuda.graph_pool_handle()
        programs = {
            size: capture(classify, images[:size], self.precision, stream, pool)
            for size in reversed(captured_sizes(max_batch_size))
        }
        return GpuStream(programs, images, probabilities)

    def __call__(self, images: Sequence[torch.Tensor]) -> Probabilities:
        """Computes probabilities; see `app.inference.engine.Engine`."""
        probabilities: Probabilities = self._gpu_streams.classify(images).numpy()
        return checked(probabilities, image_count=len(images), class_count=self._class_count)


def copy_of_model(artifact: Artifact) -> Artifact:
    """Returns an artifact with a module of its own, whose parameters can be moved to a device."""
    with torch.no_grad():  # else the copy's parameters are results of a computation, and torch warns about moving them
        return replace(artifact, module=copy.deepcopy(artifact.module))


def spread(devices: Sequence[torch.device], streams: int) -> list[torch.device]:
    """Returns the device of each stream; all devices have one, and neighbours differ."""
    return [devices[number % len(devices)] for number in range(max(streams, len(devices)))]


class GpuStreams:
    """Hands each batch to the stream that has been free for longest, so that the GPUs take turns.

    Args:
        gpu_streams: those of one GPU not side by side.
    """

    def __init__(self, gpu_streams: Sequence[GpuStream]) -> None:
        self._free: queue.SimpleQueue[GpuStream] = queue.SimpleQueue()
        for gpu_stream in gpu_streams:
            self._free.put(gpu_stream)

    def classify(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """Waits for a stream and classifies on it, in halves if the GPU's memory does not suffice."""
        gpu_stream = self._free.get()
        try:
            return halving_when_out_of_memory(gpu_stream.classify, images)
        finally:
            self._free.put(gpu_stream)


def capture(
    classify: Classify,
    images: torch.Tensor,
    precision: Precision,
    stream: torch.cuda.Stream,
    pool: Any,
) -> Program:
    """Captures `classify` for one batch size as a CUDA graph; without one where that fails.

    Args:
        classify: frozen, on the stream's device.
        images: pinned `(N, 3, S, S)`.
        precision: of the computation.
        stream: that everything runs on.
        pool: of the graph's memory, shared by graphs that never run at once.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs ("Usage with autocast" asks for no cache).
    """
    dtype = AUTOCAST_DTYPES.get(precision)

    def compute(on_device: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", dtype, enabled=dtype is not None, cache_enabled=False):
            return classify(on_device)

    with torch.inference_mode(), torch.cuda.stream(stream):
        given = images.to(stream.device, non_blocking=True)
        for _ in range(_RUNS_BEFORE_CAPTURE):
            computed = compute(given)
        stream.synchronize()
        graph: torch.cuda.CUDAGraph | None = None
        try:
            captured = torch.cuda.CUDAGraph()
            # "thread_local": another model may be serving meanwhile.
            with torch.cuda.graph(captured, pool=pool, stream=stream, capture_error_mode="thread_local"):
                computed = compute(given)
            graph = captured
        except RuntimeError as error:
            logger.warning("A batch of %d is not captured as a CUDA graph: %s", len(images), str(error).splitlines()[0])

    def run(images: torch.Tensor, probabilities: torch.Tensor) -> None:
        with torch.inference_mode(), torch.cuda.stream(stream):
            given.copy_(images, non_blocking=True)
            if graph is not None:
                graph.replay()
                probabilities.copy_(computed, non_blocking=True)
            else:
                probabilities.copy_(compute(given), non_blocking=True)
        stream.synchronize()

    return run
