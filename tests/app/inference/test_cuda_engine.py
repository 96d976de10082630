"""The CUDA engine pads batches, spreads its streams over all GPUs and shares their memory; some tests need a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from app.errors import ArtifactError
from app.inference.artifact import Artifact
from app.inference.cuda_engine import CudaEngine, GpuStream, GpuStreams, captured_sizes, spread
from app.inference.devices import resolve_devices
from app.inference.engine import OutOfDeviceMemoryError, Pixels, Precision
from app.inference.golden_check import MAX_DEVIATIONS
from app.inference.loading import load_artifact
from app.inference.torchscript_engine import TorchScriptEngine
from app.store.model_store import ModelStore

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


class Means:
    """Stands for a captured graph: the mean of each image, of as many images as it was captured for."""

    def __init__(self, size: int, *, out_of_memory_from: int = 100) -> None:
        self.size = size
        self.runs = 0
        self._out_of_memory_from = out_of_memory_from

    def __call__(self, images: torch.Tensor, probabilities: torch.Tensor) -> None:
        assert len(images) == len(probabilities) == self.size
        self.runs += 1
        if self.size >= self._out_of_memory_from:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        probabilities.copy_(images.float().mean(dim=(1, 2, 3)).unsqueeze(1))


def gpu_stream_of(programs: dict[int, Means]) -> GpuStream:
    largest = max(programs)
    return GpuStream(programs, torch.zeros(largest, 3, 4, 4, dtype=torch.uint8), torch.zeros(largest, 1))


def images_of(values: Sequence[int]) -> list[Pixels]:
    return [np.full((4, 4, 3), value, dtype=np.uint8) for value in values]


@pytest.mark.parametrize(
    ("most", "sizes"), [(1, [1]), (2, [1, 2]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12]), (3, [1, 2, 3])]
)
def test_captured_sizes_are_powers_of_two_and_the_largest(most: int, sizes: list[int]) -> None:
    assert captured_sizes(most) == sizes


def test_batch_is_padded_to_the_next_size_and_keeps_its_order() -> None:
    programs = {size: Means(size) for size in captured_sizes(8)}
    gpu_stream = gpu_stream_of(programs)

    for values in ([7], [1, 2, 3], [9, 8, 7, 6, 5, 4, 3, 2], [5, 6], [10, 20, 30, 40, 50]):
        assert gpu_stream.classify(images_of(values)).flatten().tolist() == values
    assert {size: program.runs for size, program in programs.items()} == {1: 1, 2: 1, 4: 1, 8: 2}


def test_answer_outlives_the_buffers_next_use() -> None:
    gpu_stream = gpu_stream_of({1: Means(1)})
    first = gpu_stream.classify(images_of([1]))
    gpu_stream.classify(images_of([2]))

    assert first.item() == 1


def test_gpu_streams_take_turns_so_that_every_gpu_works() -> None:
    programs = [Means(1), Means(1), Means(1)]
    gpu_streams = GpuStreams([gpu_stream_of({1: program}) for program in programs])
    for value in range(9):
        assert gpu_streams.classify(images_of([value])).item() == value

    assert [program.runs for program in programs] == [3, 3, 3]


def test_lane_goes_on_after_its_memory_did_not_suffice() -> None:
    gpu_streams = GpuStreams([gpu_stream_of({size: Means(size, out_of_memory_from=4) for size in captured_sizes(8)})])

    assert gpu_streams.classify(images_of(range(7))).flatten().tolist() == list(range(7))
    with pytest.raises(OutOfDeviceMemoryError):
        GpuStreams([gpu_stream_of({1: Means(1, out_of_memory_from=1)})]).classify(images_of([1]))


def test_streams_are_spread_over_all_gpus() -> None:
    zero, one = torch.device("cuda:0"), torch.device("cuda:1")

    assert spread([zero, one], 4) == [zero, one, zero, one]
    assert spread([zero, one], 1) == [zero, one]
    assert spread([zero], 2) == [zero, zero]


def test_every_gpu_is_used_unless_some_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.inference.devices._may_have_accelerator", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)

    assert resolve_devices("auto") == ("cuda:0", "cuda:1", "cuda:2")
    assert resolve_devices("cuda") == resolve_devices("auto")
    assert resolve_devices("cuda:2,cuda:0") == ("cuda:2", "cuda:0")
    with pytest.raises(ArtifactError, match="has 3 CUDA devices"):
        resolve_devices("cuda:1,cuda:3")


def test_machine_without_gpus_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)

    with pytest.raises(ArtifactError, match="has 0 CUDA devices"):
        resolve_devices("cuda")


@pytest.fixture
def artifact(imagenet_store: object) -> Artifact:
    """The default model."""
    return load_artifact("imagenet", ModelStore(imagenet_store))  # type: ignore[arg-type]


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_gpu_computes_what_the_reference_does_at_every_batch_size(artifact: Artifact, precision: Precision) -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3), dtype=np.uint8))
    expected = TorchScriptEngine(artifact)(images)
    engine = CudaEngine(artifact, resolve_devices("cuda"), precision=precision, streams=2, max_batch_size=8)

    for count in range(1, 9):
        found = engine(images[:count])
        assert np.abs(found - expected[:count]).max() <= MAX_DEVIATIONS[precision]


@needs_cuda
def test_every_batch_size_is_captured_as_a_graph(artifact: Artifact, caplog: pytest.LogCaptureFixture) -> None:
    CudaEngine(artifact, resolve_devices("cuda"), precision="bfloat16", streams=2, max_batch_size=8)

    assert "not captured" not in caplog.text


@needs_cuda
def test_capture_that_fails_leaves_a_program_without_a_graph(
    artifact: Artifact, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("no capture")

    monkeypatch.setattr(torch.cuda, "graph", failing)
    engine = CudaEngine(artifact, resolve_devices("cuda:0"), precision="float32", streams=1, max_batch_size=2)
    image = np.full((224, 224, 3), 128, dtype=np.uint8)

    assert "not captured" in caplog.text
    assert engine([image]).sum() == pytest.approx(1, abs=1e-3)
