"""The engine that runs an artifact's TorchScript on one or several NVIDIA GPUs, with CUDA graphs.

batch -> a free stream (GPU, CUDA stream, pinned buffers) -> padded to a captured size -> copy, replay, copy back

One stream copies while another one computes, so two streams keep a GPU busy. Resizing stays on the CPU: large JPEGs are
decoded there at a reduced scale, so little is left to resize, and a crop of 224 x 224 is only 150 kB to copy.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from app.inference.artifact import Artifact
from app.inference.engine import Pixels, Precision, Probabilities, Samples, checked, has_samples
from app.inference.torchscript_engine import (
    AUTOCAST_DTYPES,
    Classify,
    TorchScriptEngine,
    frozen_classify,
    halving_when_out_of_memory,
    planes,
)

logger = logging.getLogger(__name__)

# TorchScript profiles two runs and compiles in the third; a capture must find nothing left to compile or to allocate.
_RUNS_BEFORE_CAPTURE = 3

Program = Callable[[torch.Tensor, torch.Tensor], None]
"""Classifies pinned images `(N, 3, S, S)` into pinned probabilities `(N, C)`, for one N. It returns when it is done."""


def captured_sizes(max_batch_size: int) -> list[int]:
    """Returns the batch sizes to capture, ascending: the powers of two below the largest size, and the largest size."""
    sizes = [1 << power for power in range(max_batch_size.bit_length()) if 1 << power < max_batch_size]
    return [*sizes, max_batch_size]


@dataclass(frozen=True)
class GpuStream:
    """What one batch at a time needs on a GPU: a CUDA graph for each batch size, and buffers.

    Attributes:
        programs: the program for each captured batch size.
        images: the input buffer, pinned uint8 `(N, 3, S, S)`, channels-last. N is the largest batch size.
        probabilities: the output buffer, pinned float32 `(N, C)`.
    """

    programs: Mapping[int, Program]
    images: torch.Tensor
    probabilities: torch.Tensor

    def classify(self, images: Sequence[Pixels | Samples]) -> torch.Tensor:
        """Classifies a batch with the program of the smallest size that holds it. Rows beyond the batch are ignored.

        Args:
            images: the batch, each image uint8 `(S, S, 3)`; no more of them than the largest captured size.

        Returns:
            the probabilities `(N, C)`, a copy.
        """
        count = len(images)
        size = min(size for size in self.programs if size >= count)
        for row, image in zip(self.images, images, strict=False):
            row.copy_(planes(image))
        self.programs[size](self.images[:size], self.probabilities[:size])
        return self.probabilities[:count].clone()


class CudaEngine:
    """Runs an artifact's TorchScript on one or several GPUs.

    Args:
        artifact: a model with `classify`.
        devices: the GPUs, as torch names them. Each holds the model once.
        precision: the precision of the computation. One lower than float32 is autocast.
        streams: how many batches are computed at once, spread over the GPUs. Each GPU has at least one stream.
        max_batch_size: the most images that a batch will have.
    """

    name = TorchScriptEngine.name
    warm_up_runs = 1  # all runs that prepare something were made before the graphs were captured
    takes_samples = True

    def __init__(
        self,
        artifact: Artifact,
        devices: Sequence[str],
        *,
        precision: Precision,
        streams: int,
        max_batch_size: int,
    ) -> None:
        if precision == "float32":  # not TF32, torch's default for convolutions, which is 10 bits where float32 has 23
            torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        self.device = ",".join(devices)
        self.precision: Precision = precision
        self._class_count = len(artifact.class_names)
        self._artifact = artifact
        self._for_samples: TorchScriptEngine | None = None
        self._making = threading.Lock()
        gpus = [torch.device(device) for device in devices]
        models = {gpu: frozen_classify(artifact, gpu) for gpu in dict.fromkeys(gpus)}
        self._gpu_streams = GpuStreams(
            [self._gpu_stream(artifact, models[gpu], gpu, max_batch_size) for gpu in spread(gpus, streams)]
        )

    def _of_samples(self) -> TorchScriptEngine:
        """Returns the engine for what the graphs do not take. It is made when somebody needs it, as it takes memory."""
        with self._making:
            if self._for_samples is None:
                device = self.device.partition(",")[0]
                self._for_samples = TorchScriptEngine(self._artifact, device, precision=self.precision)
            return self._for_samples

    def _gpu_stream(
        self, artifact: Artifact, classify: Classify, device: torch.device, max_batch_size: int
    ) -> GpuStream:
        assert artifact.geometry
        side = artifact.geometry.image_size
        images = torch.empty(
            (max_batch_size, 3, side, side), dtype=torch.uint8, memory_format=torch.channels_last, pin_memory=True
        )
        probabilities = torch.empty((max_batch_size, self._class_count), dtype=torch.float32, pin_memory=True)
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # One pool for all sizes: a stream computes one at a time. The largest comes first, and the others fit into it.
        pool = torch.cuda.graph_pool_handle()
        programs = {
            size: capture(classify, images[:size], self.precision, stream, pool)
            for size in reversed(captured_sizes(max_batch_size))
        }
        return GpuStream(programs, images, probabilities)

    def __call__(self, images: Sequence[Pixels | Samples]) -> Probabilities:
        """Computes probabilities; see `app.inference.engine.Engine`."""
        if has_samples(images):
            return self._of_samples()(images)
        probabilities: Probabilities = self._gpu_streams.classify(images).numpy()
        return checked(probabilities, image_count=len(images), class_count=self._class_count)


def spread(devices: Sequence[torch.device], streams: int) -> list[torch.device]:
    """Returns the device of each stream. Every device has at least one, and neighbours differ."""
    return [devices[number % len(devices)] for number in range(max(streams, len(devices)))]


class GpuStreams:
    """Hands each batch to the stream that has been free for longest, so that the GPUs take turns.

    Args:
        gpu_streams: the streams, ordered so that the GPUs take turns.
    """

    def __init__(self, gpu_streams: Sequence[GpuStream]) -> None:
        self._free: queue.SimpleQueue[GpuStream] = queue.SimpleQueue()
        for gpu_stream in gpu_streams:
            self._free.put(gpu_stream)

    def classify(self, images: Sequence[Pixels | Samples]) -> torch.Tensor:
        """Waits for a free stream and classifies a batch on it, in halves if the GPU's memory is too small for it."""
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
    """Captures `classify` for one batch size as a CUDA graph.

    Args:
        classify: the frozen function of the model, on the stream's device.
        images: a pinned buffer `(N, 3, S, S)`, which sets the batch size N.
        precision: the precision of the computation.
        stream: the CUDA stream that everything runs on.
        pool: the pool of the graph's memory, shared by graphs that never run at once.

    Returns:
        a program that replays the graph. Where capturing fails it computes without a graph, and a warning is logged.

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
