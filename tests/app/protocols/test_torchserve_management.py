"""TorchServe's management and metrics interfaces, in this process and on their ports."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.main import create_management_app, create_metrics_app
from app.models.store_watcher import StoreWatcher
from tests.app.protocols.conftest import ADMIN_KEY
from tests.app.protocols.test_torchserve import check_error
from tests.support.colours import StartApp, applications
from tests.support.live import live_server
from tests.support.sockets import until

pytestmark = pytest.mark.in_process
ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}


@pytest.fixture(scope="module")
def managed(three_models: tuple[Path, str], admin_keys_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service with an admin key whose store may be changed, and a client of its management interface."""
    root = tmp_path_factory.mktemp("managed")
    shutil.copytree(three_models[0], root, dirs_exist_ok=True)
    with applications(root) as start:
        client = start(model="colours,pair", admin_keys_file=admin_keys_file)
        service = client.app.state.service  # type: ignore[attr-defined]
        with TestClient(create_management_app(service), raise_server_exceptions=False) as management:
            management.portal = client.portal  # one event loop: the registry belongs to that of the service
            yield client, management, root


@pytest.fixture
def management(managed: Any) -> Iterator[TestClient]:
    """A client of the management interface, with the models that it began with."""
    _, management, _ = managed
    yield management
    for name in ("two", "third"):
        management.delete(f"/models/{name}", headers=ADMIN)
    management.post("/models?url=pair", headers=ADMIN)


def test_models_come_a_page_at_a_time(management: TestClient) -> None:
    first = management.get("/models?limit=1").json()
    assert first == {"nextPageToken": "1", "models": [{"modelName": "colours", "modelUrl": "colours"}]}
    second = management.get(f"/models?limit=1&next_page_token={first['nextPageToken']}").json()
    assert second == {"models": [{"modelName": "pair", "modelUrl": "pair"}]}
    for query in ("limit=0", "limit=x", "next_page_token=-1"):
        check_error(management.get(f"/models?{query}"), 400, "BadRequestException")


@pytest.mark.parametrize("path", ["/models/pair", "/models/pair/1.0", "/models/pair/all"])
def test_model_is_described_with_its_processes(management: TestClient, path: str) -> None:
    [model] = management.get(path).json()

    assert (model["modelName"], model["modelVersion"], model["modelUrl"]) == ("pair", "1.0", "pair")
    assert model["minWorkers"] == model["maxWorkers"] == 1
    assert model["loadedAtStartup"] is True
    assert model["jobQueueStatus"] == {"remainingCapacity": 128, "pendingRequests": 0}
    [worker] = model["workers"]
    assert worker["status"] == "READY"
    assert Path(f"/proc/{worker['pid']}").exists()
    assert worker["memoryUsage"] > 10_000_000
    assert worker["startTime"].startswith("20")


def test_model_is_registered_under_another_name(managed: Any, management: TestClient, image: bytes) -> None:
    response = management.post("/models?url=pair.mar&model_name=two&initial_workers=4", headers=ADMIN)

    assert response.status_code == 200
    assert response.json() == {"status": 'Model "two" Version: 1.0 registered with 1 initial workers'}
    client = managed[0]
    expected = client.post("/predictions/pair", content=image).json()
    assert client.post("/predictions/two", content=image).json() == expected
    assert client.post("/models/two/predict", content=image).json()["model"] == "two"
    assert management.get("/v1/models/two").json() == {"name": "two", "ready": True}
    again = management.post("/models?url=pair&model_name=two", headers=ADMIN)
    check_error(again, 409, "ConflictStatusException")
    response = management.delete("/models/two", headers=ADMIN)
    assert response.json() == {"status": 'Model "two" unregistered'}
    check_error(client.post("/predictions/two", content=image), 404, "ModelNotFoundException", "Model not found: two")
    assert client.post("/predictions/pair", content=image).json() == expected


def test_parameters_may_come_as_json(management: TestClient) -> None:
    body = {"url": "pair", "model_name": "third", "synchronous": True}
    assert management.post("/models", json=body, headers=ADMIN).status_code == 200
    assert management.get("/models/third").status_code == 200


BAD_URLS = [
    "http://a/b.mar",
    "https://a/b",
    "s3://a/b",
    "/etc/passwd",
    "../colours",
    "a/b",
    "..",
    "file.pt",
    "A B",
    ".",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_nothing_but_names_is_registered(management: TestClient, url: str) -> None:
    response = management.post("/models", params={"url": url}, headers=ADMIN)
    is_name = url == "file.pt"
    check_error(response, 404 if is_name else 400, "ModelNotFoundException" if is_name else "BadRequestException")


ERRORS: dict[str, tuple[str, str, int, str, str | None]] = {
    "no url": ("POST", "/models", 400, "BadRequestException", "Parameter url is required."),
    "not in the store": ("POST", "/models?url=nobody", 404, "ModelNotFoundException", "Model not found: nobody"),
    "there already": ("POST", "/models?url=pair", 409, "ConflictStatusException", None),
    "unknown": ("GET", "/models/nobody", 404, "ModelNotFoundException", "Model not found: nobody"),
    "unknown version": ("GET", "/models/pair/9.9", 404, "ModelVersionNotFoundException",
                        "Model version: 9.9 does not exist for model: pair"),
    "scale nobody": ("PUT", "/models/nobody", 404, "ModelNotFoundException", None),
    "scale by words": ("PUT", "/models/pair?min_worker=x", 400, "BadRequestException", None),
    "default of nobody": ("PUT", "/models/nobody/1/set-default", 404, "ModelNotFoundException", None),
    "default version": ("PUT", "/models/pair/9.0/set-default", 404, "ModelVersionNotFoundException", None),
    "default of many digits": ("PUT", f"/models/pair/{'9' * 5_000}/set-default", 404,
                               "ModelVersionNotFoundException", None),
    "default no version": ("PUT", "/models/pair/x/set-default", 404, "ModelVersionNotFoundException", None),
    "delete nobody": ("DELETE", "/models/nobody", 404, "ModelNotFoundException", None),
    "delete the default": ("DELETE", "/models/colours", 409, "ConflictStatusException", None),
    "delete a version": ("DELETE", "/models/pair/2.0", 404, "ModelVersionNotFoundException", None),
    "method": ("PATCH", "/models", 405, "MethodNotAllowedException", None),
    "inference": ("POST", "/predictions/pair", 404, "ResourceNotFoundException", None),
    "elsewhere": ("GET", "/nowhere", 404, "ResourceNotFoundException", None),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_error_has_its_shape_and_words(management: TestClient, case: str) -> None:
    method, path, status, kind, message = ERRORS[case]
    check_error(management.request(method, path, headers=ADMIN), status, kind, message)


def test_scaling_tells_what_serves_instead(management: TestClient) -> None:
    for query, status in [("", 202), ("&synchronous=true", 200)]:
        response = management.put(f"/models/pair?min_worker=3{query}", headers=ADMIN)
        assert response.status_code == status
        assert '"pair"' in response.json()["status"]
        assert "1 processes" in response.json()["status"]


def test_version_becomes_the_default(managed: Any, management: TestClient) -> None:
    _, _, root = managed
    response = management.put("/models/pair/1.0/set-default", headers=ADMIN)

    assert response.status_code == 200
    assert (root / "pair" / "pinned").read_text().strip() == "1"


def test_changes_need_an_admin_key(management: TestClient, start: StartApp) -> None:
    changes = [("POST", "/models?url=pair"), ("PUT", "/models/pair"), ("DELETE", "/models/pair"),
               ("PUT", "/models/pair/1/set-default")]  # fmt: skip
    for method, path in changes:
        check_error(management.request(method, path), 401, "InvalidKeyException")
    service = start().app.state.service  # type: ignore[attr-defined]
    unmanaged = TestClient(create_management_app(service))
    for method, path in changes:
        check_error(unmanaged.request(method, path), 405, "MethodNotAllowedException")
    assert unmanaged.get("/models/pair").status_code == 200


def test_metrics_have_torchserves_names(start: StartApp, image: bytes) -> None:
    client = start()
    for _ in range(3):
        client.post("/predictions/pair", content=image)
    client.post("/predictions/pair", content=b"x")
    client.get("/predictions/pair")
    metrics = TestClient(create_metrics_app(client.app.state.service))  # type: ignore[attr-defined]

    text = metrics.get("/metrics").text

    samples = {
        (sample.name, sample.labels.get("model_name")): sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["ts_inference_requests_total", "pair"].value == 4
    assert samples["ts_inference_requests_total", "pair"].labels == {
        "model_name": "pair",
        "model_version": "default",
        "hostname": socket.gethostname(),
    }
    assert samples["ts_inference_latency_microseconds", "pair"].value > 0
    assert samples["ts_queue_latency_microseconds", "pair"].value >= 0
    assert samples["Requests2XX", None].value >= 3
    assert samples["Requests4XX", None].value == 2
    assert samples["Requests5XX", None].labels == {"Level": "Host", "Hostname": socket.gethostname()}
    assert "predictor_images_total" in text
    check_error(metrics.get("/models"), 404, "ResourceNotFoundException")


def _pids(models: Any) -> set[int]:
    """Returns the processes that serve the first of described models."""
    return {worker["pid"] for worker in models[0]["workers"]}


def free_port() -> int:
    """Returns a port that is free now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.mark.slow
def test_ports_of_their_own_answer_for_all_workers(
    three_models: tuple[Path, str], admin_keys_file: Path, image: bytes, tmp_path: Path
) -> None:
    ports = {"management_port": free_port(), "metrics_port": free_port()}
    root, _ = three_models
    settings = {"model": "colours", "model_store": root, "admin_keys_file": admin_keys_file, **ports}
    with live_server(tmp_path / "log", workers=2, **settings) as server, httpx.Client(timeout=30) as client:
        management, metrics = (f"http://127.0.0.1:{port}" for port in ports.values())
        while client.get(f"{server.url}/health/ready").status_code != 200:
            pass
        until(lambda: _pids(client.get(f"{management}/models/colours").json()) == set(server.workers))
        response = client.post(f"{management}/models?url=pair&model_name=two", headers=ADMIN)
        assert response.json()["status"] == 'Model "two" Version: 1.0 registered with 2 initial workers'
        for _ in range(20):  # whichever worker answers
            answer = httpx.post(f"{server.url}/predictions/two", content=image)
            assert set(answer.json()) == {"dark", "light"}
        assert client.delete(f"{management}/models/two", headers=ADMIN).status_code == 200
        for _ in range(20):
            assert httpx.post(f"{server.url}/predictions/two", content=image).status_code == 404
        assert "ts_inference_requests_total{hostname=" in client.get(f"{metrics}/metrics").text
        assert client.get(f"{server.url}/models").headers["Content-Type"] == "application/json"
        check_error(client.get(f"{management}/predictions/two"), 404, "ResourceNotFoundException")
        assert client.get(f"{metrics}/models").status_code == 404
    assert server.process.returncode == 0


def test_watcher_loads_a_model_under_its_own_name_too(managed: Any) -> None:
    client, _, _ = managed
    watcher: StoreWatcher = client.app.state.service.watcher
    deployment = client.portal.call(watcher.load, "pair")
    assert (deployment.name, deployment.alias) == ("pair", None)
