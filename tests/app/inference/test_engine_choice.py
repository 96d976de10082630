"""Only an engine that passes the golden check may serve; what was left out is told with its reason."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from torch import nn

from app.inference.engine import OutOfDeviceMemoryError, Pixels, Samples
from app.inference.loading import load_artifact
from app.inference.openvino_engine import OpenVINOEngine
from app.inference.torchscript_engine import TorchScriptEngine, halving_when_out_of_memory
from app.store.model_store import ModelStore
from tests.support.colours import COLOURS, StartApp, colour_image, colour_predictor
from tests.support.twins import ENGINES, add_twin, list_twin

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch.onnx


class SharperColour(nn.Module):
    """A network that `MostlyColour`'s golden examples find out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)) * 3


@pytest.fixture
def damaged_store(twin_store: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(twin_store, tmp_path / "store"))


def candidates(client: TestClient) -> dict[str, dict[str, object]]:
    """Returns what is told of each engine that was considered."""
    return {each["engine"]: each for each in client.get("/models/colours").json()["engine_candidates"]}


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_that_is_asked_for_serves(start_app: StartApp, twin_store: Path, engine: str) -> None:
    client = start_app(model_store=twin_store, engine=engine)

    assert client.get("/models/colours").json()["engine"] == engine
    assert list(candidates(client)) == [engine]
    for colour in COLOURS:
        answer = client.post("/predict", content=colour_image(colour)).json()
        assert answer["predictions"][0]["class_name"] == colour


def test_auto_takes_openvino_where_there_is_a_twin(start_app: StartApp, twin_store: Path) -> None:
    found = candidates(start_app(model_store=twin_store))

    assert list(found) == ["openvino"]
    assert found["openvino"]["chosen"] is True
    check = found["openvino"]["golden_check"]
    assert isinstance(check, dict)
    assert check["max_abs_deviation"] <= check["bound"] == 1e-3


def test_model_without_a_twin_has_torchscript(client: TestClient) -> None:
    assert list(candidates(client)) == ["torchscript"]


def other_network(twin: Path) -> None:
    """The twin of another model, with a hash that fits."""
    add_twin(twin.parent, colour_predictor(SharperColour()))


def not_onnx(twin: Path) -> None:
    """No ONNX at all, with a hash that fits."""
    twin.write_bytes(b"nonsense")
    list_twin(twin.parent)


@pytest.mark.parametrize(
    ("damage", "reason"), [(other_network, "golden check failed"), (not_onnx, "OpenVINO cannot use")]
)
def test_twin_that_does_not_prove_itself_is_left_out_and_says_why(
    start_app: StartApp, damaged_store: Path, damage: Callable[[Path], None], reason: str
) -> None:
    damage(damaged_store / "colours" / "1" / "model.onnx")

    client = start_app(model_store=damaged_store)
    assert client.get("/models/colours").json()["engine"] == "torchscript"
    assert reason in str(candidates(client)["openvino"]["rejected_because"])

    unready = start_app(model_store=damaged_store, engine="openvino").get("/health/ready")
    assert unready.status_code == 503
    assert reason in unready.json()["detail"]


def test_what_no_engine_can_do_is_told_for_each(start_app: StartApp, damaged_store: Path) -> None:
    not_onnx(damaged_store / "colours" / "1" / "model.onnx")
    unready = start_app(model_store=damaged_store, precision="float16").get("/health/ready").json()

    assert "openvino: " in unready["detail"]
    assert "torchscript: TorchScript computes in float16 on GPUs only" in unready["detail"]


def test_twin_with_another_hash_is_never_read(start_app: StartApp, damaged_store: Path) -> None:
    (damaged_store / "colours" / "1" / "model.onnx").write_bytes(b"nonsense")
    unready = start_app(model_store=damaged_store).get("/health/ready")

    assert unready.status_code == 503
    assert "not the file that was published" in unready.json()["detail"]


def test_asking_for_a_twin_that_is_not_there_says_so(start_app: StartApp) -> None:
    unready = start_app(engine="openvino").get("/health/ready")

    assert unready.status_code == 503
    assert "no verified model.onnx" in unready.json()["detail"]


@pytest.mark.parametrize("engine", ENGINES)
def test_reduced_precision_has_its_own_bound(start_app: StartApp, twin_store: Path, engine: str) -> None:
    description = start_app(model_store=twin_store, engine=engine, precision="bfloat16").get("/models/colours").json()
    if engine == "openvino" and description["state"] == "failed":
        pytest.skip(description["reason"])

    assert description["precision"] == "bfloat16"
    assert description["golden_check"]["bound"] == 0.1


@pytest.mark.slow
def test_importing_openvino_does_not_import_its_telemetry() -> None:
    pytest.importorskip("openvino", reason="there is no OpenVINO for this platform")
    code = """
import sys, threading
from app.inference.openvino_engine import _import_openvino
assert "openvino" not in sys.modules
_import_openvino()
assert "openvino" in sys.modules
assert not [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_largest_batch_may_be_one_image(start_app: StartApp, twin_store: Path) -> None:
    client = start_app(model_store=twin_store, max_batch_size=1, cores=2)

    assert client.get("/models/colours").json()["state"] == "ready"
    assert client.post("/predict", content=colour_image("red")).json()["predictions"][0]["class_name"] == "red"


@pytest.mark.parametrize("engine", ENGINES)
def test_layout_of_threads_is_told(start_app: StartApp, twin_store: Path, engine: str) -> None:
    model = start_app(model_store=twin_store, engine=engine, cores=2).get("/models/colours").json()

    assert (model["streams"], model["threads_per_stream"]) == (3, 1)
    assert model["lone_threads"] == 1  # so small a network would gain nothing from more


@pytest.mark.parametrize(
    ("settings", "streams", "threads"),
    [
        ({"streams": 3, "cores": 6}, 3, 2),
        ({"threads_per_stream": 2, "cores": 6}, 3, 2),
        ({"streams": 1, "threads_per_stream": 1, "cores": 6}, 1, 1),
        ({"cores": 1}, 1, 1),
    ],
)
def test_layout_that_is_asked_for_is_taken(
    start_app: StartApp, settings: dict[str, int], streams: int, threads: int
) -> None:
    model = start_app(**settings).get("/models/colours").json()

    assert (model["streams"], model["threads_per_stream"], model["lone_threads"]) == (streams, threads, threads)


def test_precision_that_the_cpu_has_not_says_so(start_app: StartApp) -> None:
    unready = start_app(precision="float16").get("/health/ready")

    assert unready.status_code == 503
    assert "float16 on GPUs only" in unready.json()["detail"]


def test_batch_that_does_not_fit_into_memory_is_computed_in_halves() -> None:
    sizes = []

    def classify(images: Sequence[Pixels | Samples]) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return torch.stack(list(map(torch.from_numpy, images)))

    images = [np.array([number], dtype=np.uint8) for number in range(7)]

    assert halving_when_out_of_memory(classify, images).flatten().tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert sizes == [7, 3, 1, 2, 4, 2, 2]
    with pytest.raises(OutOfDeviceMemoryError):
        halving_when_out_of_memory(lambda _: classify([images[0]] * 3), images[:1])


def test_engine_computes_with_the_threads_it_was_given(colours_store: Path) -> None:
    from app.inference.loading import load_artifact
    from app.store.model_store import ModelStore

    artifact = load_artifact("colours", ModelStore(colours_store))
    before = torch.get_num_threads()
    try:
        TorchScriptEngine(artifact, threads=2)([np.zeros((16, 16, 3), dtype=np.uint8)])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("engine", ["torchscript", "openvino"])
def test_engine_computes_samples_that_have_no_8_bits(twin_store: Path, engine: str) -> None:
    artifact = load_artifact("colours", ModelStore(twin_store))
    assert artifact.onnx_twin is not None
    made = TorchScriptEngine(artifact) if engine == "torchscript" else OpenVINOEngine(artifact.onnx_twin, class_count=3)
    samples = np.random.default_rng(6).uniform(90, 130, (2, 16, 16, 3)).astype(np.float32)
    pixels = samples[0].astype(np.uint8)
    module = torch.jit.load(str(artifact.files.model_file))  # type: ignore[no-untyped-call]
    expected = module.classify(torch.from_numpy(samples / np.float32(255)).permute(0, 3, 1, 2)).numpy()

    assert made.takes_samples
    assert made([*samples]) == pytest.approx(expected, abs=1e-6)
    mixed = made([pixels, samples[1]])
    assert mixed[0] == pytest.approx(made([pixels])[0], abs=1e-6)
    assert mixed[1] == pytest.approx(expected[1], abs=1e-6)
