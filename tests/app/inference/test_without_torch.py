"""A service that computes in OpenVINO never loads torch; where torch is needed and missing, a sentence says so."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from app.errors import ArtifactError
from app.inference import devices
from app.inference.devices import resolve_devices
from app.store.manifest import MODEL_FILE
from tests.support.colours import StartApp, colour_image
from tests.support.live import live_server


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without torch, as far as the service asks for it."""
    for module in ("devices", "loading", "engine_choice"):
        monkeypatch.setattr(f"app.inference.{module}.has_torch", lambda: False)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="libraries are read from Linux's /proc")
def test_service_that_computes_in_openvino_has_no_torch_in_memory(twin_store: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "log", model="colours", model_store=twin_store, device="cpu") as server:
        server.wait_until_ready()
        answer = httpx.post(f"{server.url}/predict", content=colour_image("red")).json()
        assert answer["predictions"][0]["class_name"] == "red"
        processes = [server.process.pid, *server.workers]
        libraries = [Path(f"/proc/{pid}/maps").read_text() for pid in processes]

    assert "libopenvino" in libraries[-1]
    assert [pid for pid, loaded in zip(processes, libraries, strict=True) if "libtorch" in loaded] == []


@pytest.mark.usefixtures("no_torch")
def test_model_with_a_twin_serves_without_torch(start_app: StartApp, twin_store: Path) -> None:
    client = start_app(model_store=twin_store)

    assert client.get("/models/colours").json()["engine"] == "openvino"
    assert client.post("/predict", content=colour_image("blue")).json()["predictions"][0]["class_name"] == "blue"


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize("settings", [{}, {"engine": "torchscript"}])
def test_model_without_a_twin_says_that_it_needs_torch(start_app: StartApp, settings: dict[str, str]) -> None:
    unready = start_app(**settings).get("/health/ready")

    assert unready.status_code == 503
    assert "TorchScript needs torch, which is not installed: pip install 'image-predictor[torch]'" in unready.text


@pytest.mark.usefixtures("no_torch")
def test_plain_file_says_that_it_needs_torch(start_app: StartApp, colours_store: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.pt"
    plain.write_bytes(b"nonsense")
    foreign = start_app(model=str(plain)).get("/health/ready").json()["detail"]
    verified = start_app(model=str(colours_store / "colours" / "1" / MODEL_FILE)).get("/health/ready").json()["detail"]

    assert "cannot be loaded as TorchScript" in foreign
    assert "needs torch, which is not installed" in verified


@pytest.mark.usefixtures("no_torch")
def test_device_that_only_torch_knows_says_so() -> None:
    assert resolve_devices("auto") == ("cpu",)
    assert resolve_devices("cpu") == ("cpu",)
    with pytest.raises(ArtifactError, match="--device cuda:1 needs torch, which is not installed"):
        resolve_devices("cuda:1")


def test_sentence_for_a_python_without_torchscript_names_the_one_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.inference.devices.sys.version_info", (3, 14))

    assert "TorchScript ends at Python 3.13" in devices.how_to_get_torch()


def test_torch_is_asked_for_devices_only_where_there_may_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def find(wanted: str) -> tuple[str, ...]:
        asked.append(wanted)
        return ("cpu",)

    monkeypatch.setattr("app.inference.torchscript_engine.find_devices", find)
    for may_have in (False, True):
        monkeypatch.setattr("app.inference.devices._may_have_accelerator", lambda may_have=may_have: may_have)
        resolve_devices("auto")

    assert asked == ["auto"]
