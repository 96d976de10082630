"""The package `models`: a new version takes over while requests go on, a bad one stays out, pins hold."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import shutil
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import torch
from starlette.testclient import TestClient
from torch import nn

from app.errors import OverloadedError, UnknownModelError
from app.main import create_app
from app.models.registry import Registry
from app.models.store_watcher import StoreWatcher
from app.serving.service import Service
from app.settings import Settings
from app.store.manifest import MANIFEST_FILE, MODEL_FILE
from app.store.model_store import PIN_FILE, ModelStore
from app.telemetry.metrics import Metrics
from tests.support.colours import DEVICE, StartApp, colour_image, export_colours
from tests.support.damaged_versions import Damage, flip_a_byte, swap_weights, truncate

pytestmark = pytest.mark.slow

RED = colour_image("red")


class Sharpened(nn.Module):
    """The colour model, as sure of itself as it is told to be: each version's probabilities are its own."""

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)) * self.sharpness


def publish(store_root: Path, *, version: int, name: str = "colours", damage: Damage | None = None) -> None:
    """Publishes a version, in one step and damaged if so wished, whose sharpness is its number."""
    staging = store_root.parent / "staging"
    (staging / name / str(version - 1)).mkdir(parents=True, exist_ok=True)
    folder = export_colours(staging, name, Sharpened(float(version)))
    if damage:
        damage(folder)
    (store_root / name).mkdir(parents=True, exist_ok=True)
    folder.rename(store_root / name / str(version))


@pytest.fixture
def store_root(tmp_path: Path) -> Path:
    """A store with the sharpened `colours/1`."""
    publish(tmp_path / "store", version=1)
    return tmp_path / "store"


@pytest.fixture
def watching(start_app: StartApp, store_root: Path) -> TestClient:
    """A service that watches the store."""
    return start_app(model_store=store_root, watch_store_s=0.01)


@pytest.fixture
def start_admin(start_app: StartApp, store_root: Path, tmp_path: Path) -> StartApp:
    """Starts services, and gives clients that are admins of them."""
    keys = tmp_path / "admin_keys"
    keys.write_text(f"tests:{hashlib.sha256(b'key').hexdigest()}\n")

    def start(**settings: object) -> TestClient:
        client = start_app(
            **{"model_store": store_root, "watch_store_s": 0, "admin_keys_file": keys, **settings},
        )
        client.headers["Authorization"] = "Bearer key"
        return client

    return start


def answer(client: TestClient, path: str = "/predict") -> tuple[str, float]:
    """Classifies; returns the version that answered, and the highest probability."""
    response = client.post(path, content=RED)
    assert response.status_code == 200, response.text
    return response.json()["version"], response.json()["predictions"][0]["probability"]


def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread does."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def until_async(condition: Callable[[], bool]) -> None:
    """Waits for what another task does."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def loads(client: TestClient, outcome: str) -> int:
    """Returns how many loads had an outcome."""
    head = f'predictor_model_loads_total{{outcome="{outcome}"}} '
    lines = client.get("/metrics").text.splitlines()
    return int(float(next((line.removeprefix(head) for line in lines if line.startswith(head)), "0")))


def describe(client: TestClient, name: str = "colours") -> dict[str, object]:
    """Returns what the service tells of a model."""
    description: dict[str, object] = client.get(f"/models/{name}").json()
    return description


def test_new_version_takes_over_without_a_failed_answer(watching: TestClient, store_root: Path) -> None:
    seen = {answer(watching)}
    publish(store_root, version=2)
    publish(store_root, version=3)
    until(lambda: seen.add(answer(watching)) or answer(watching)[0] == "3")  # type: ignore[func-returns-value]
    seen.add(answer(watching))

    probabilities = dict(seen)
    assert len(probabilities) == len(seen), "a version gave the probabilities of another"
    assert probabilities["3"] > probabilities["1"] + 0.01
    text = watching.get("/metrics").text
    assert f'predictor_model_info{{device="{DEVICE}",engine="torchscript",model="colours",precision="float32"' in text
    assert [line[-3:] for line in text.splitlines() if line.startswith("predictor_model_info{")].count("1.0") == 1


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_a_byte, "not the file that was published"),
        (truncate, "not the file that was published"),
        (swap_weights, "golden check failed"),
        (lambda version: (version / MANIFEST_FILE).unlink(), "cannot be read"),
    ],
    ids=["bad hash", "truncated", "wrong probabilities", "no manifest"],
)
def test_version_that_fails_stays_out_and_the_next_good_one_serves(
    watching: TestClient, store_root: Path, damage: Damage, reason: str
) -> None:
    before = answer(watching)
    publish(store_root, version=2, damage=damage)
    until(lambda: describe(watching)["rejected_version"] == "2")

    assert reason in str(describe(watching)["rejected_because"])
    assert answer(watching) == before
    assert watching.get("/health/ready").status_code == 200
    assert loads(watching, "failed") == 1, "a failure is tried once, unless it may pass"

    publish(store_root, version=3)
    until(lambda: answer(watching)[0] == "3")
    until(lambda: describe(watching)["rejected_version"] is None)
    assert (loads(watching, "ready"), loads(watching, "failed")) == (2, 1)


def test_version_that_was_rejected_is_tried_again_when_its_files_change(watching: TestClient, store_root: Path) -> None:
    """A copy that arrives in pieces, the manifest first."""
    publish(store_root.parent / "elsewhere", version=2)
    source, target = store_root.parent / "elsewhere" / "colours" / "2", store_root / "colours" / "2"
    target.mkdir()
    shutil.copy(source / MANIFEST_FILE, target)
    until(lambda: describe(watching)["rejected_version"] == "2")
    (target / MODEL_FILE).write_bytes((source / MODEL_FILE).read_bytes()[:1000])
    assert answer(watching)[0] == "1"
    shutil.copy(source / MODEL_FILE, target)

    until(lambda: answer(watching)[0] == "2")


def test_service_without_a_good_version_becomes_ready_when_one_appears(start_app: StartApp, store_root: Path) -> None:
    truncate(store_root / "colours" / "1")
    client = start_app(model_store=store_root, watch_store_s=0.01)
    assert client.get("/health/ready").status_code == 503
    publish(store_root, version=2)

    until(lambda: client.get("/health/ready").status_code == 200)
    assert answer(client)[0] == "2"


def test_restart_beside_a_damaged_version_serves_the_one_before(start_app: StartApp, store_root: Path) -> None:
    publish(store_root, version=2, damage=flip_a_byte)
    client = start_app(model_store=store_root)
    until(lambda: client.get("/health/ready").status_code == 200)

    assert answer(client)[0] == "1"
    assert describe(client)["rejected_version"] == "2"


def test_deleting_the_version_that_serves_brings_back_the_one_before(watching: TestClient, store_root: Path) -> None:
    publish(store_root, version=2)
    until(lambda: answer(watching)[0] == "2")
    (store_root / "colours" / "2").rename(store_root.parent / "deleted")

    until(lambda: answer(watching)[0] == "1")


def test_pin_rolls_back_and_stays_over_a_restart(watching: TestClient, start_app: StartApp, store_root: Path) -> None:
    publish(store_root, version=2)
    until(lambda: answer(watching)[0] == "2")
    ModelStore(store_root).pin("colours", 1)
    until(lambda: answer(watching)[0] == "1")
    publish(store_root, version=3)

    assert answer(start_app(model_store=store_root))[0] == "1"
    assert answer(watching)[0] == "1"
    ModelStore(store_root).unpin("colours")
    until(lambda: answer(watching)[0] == "3")


def test_trouble_with_the_store_changes_nothing_and_is_told(
    watching: TestClient, store_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = answer(watching)
    store_root.rename(store_root.parent / "unmounted")
    until(lambda: describe(watching)["rejected_because"] is not None)
    assert answer(watching) == before
    (store_root.parent / "unmounted").rename(store_root)
    until(lambda: describe(watching)["rejected_because"] is None)
    (store_root / "colours" / PIN_FILE).mkdir()  # cannot be read
    until(lambda: PIN_FILE in str(describe(watching)["rejected_because"]))

    assert answer(watching) == before
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 2, "each is logged once"


@pytest.mark.anyio
async def test_request_inside_is_answered_by_the_version_that_it_started_on(store_root: Path) -> None:
    """And only then is that version closed and out of memory, without the help of the garbage collector."""
    app = create_app(Settings(model="colours", model_store=store_root, watch_store_s=0.01))
    transport = httpx.ASGITransport(app)
    gc.collect()
    gc.disable()
    try:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            await until_async(lambda: app.state.service.registry.is_loaded)
            engine = weakref.ref(app.state.service.registry.served[0].engine)
            read_on, reading = asyncio.Event(), asyncio.Event()

            async def upload() -> object:
                yield RED[:20]
                reading.set()
                await read_on.wait()
                yield RED[20:]

            inside = asyncio.create_task(client.post("/predict", content=upload()))  # type: ignore[arg-type]
            await reading.wait()
            await asyncio.to_thread(publish, store_root, version=2)
            await until_async(lambda: app.state.service.registry.get().artifact.version == "2")
            assert (await client.post("/predict", content=RED)).json()["version"] == "2"
            assert engine() is not None
            read_on.set()
            answered = await inside

            assert (answered.status_code, answered.json()["version"]) == (200, "1")
            await until_async(lambda: engine() is None)
    finally:
        gc.enable()


def test_admin_routes_do_not_exist_without_a_key(start_app: StartApp) -> None:
    client = start_app()
    for action in ("reload", "load", "unload"):
        response = client.post(f"/models/colours/{action}")
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert answer(client)[0] == "1"


def test_reload_answers_when_the_new_version_serves_or_tells_why_not(start_admin: StartApp, store_root: Path) -> None:
    client = start_admin()
    assert client.post("/models/colours/reload").json()["version"] == "1"
    publish(store_root, version=2)
    assert answer(client)[0] == "1", "nobody watches"
    assert client.post("/models/colours/reload").json()["version"] == "2"
    publish(store_root, version=3, damage=swap_weights)
    refused = client.post("/models/colours/reload")

    assert (refused.status_code, refused.json()["code"]) == (409, "model_rejected")
    assert "Version 2 serves on" in refused.json()["detail"]
    assert answer(client)[0] == "2"
    assert client.post("/models/nobody/reload").json()["code"] == "unknown_model"


def test_models_are_loaded_and_unloaded_at_run_time(start_admin: StartApp, store_root: Path) -> None:
    publish(store_root, version=1, name="hues")
    publish(store_root, version=1, name="bad", damage=truncate)
    client = start_admin(model="colours,hues/1")

    assert client.post("/models/hues/unload").status_code == 204
    assert client.post("/models/hues/predict", content=RED).json()["code"] == "unknown_model"
    assert [model["reference"] for model in client.get("/models").json()["models"]] == ["colours"]
    assert client.post("/models/hues/load").json()["reference"] == "hues/1", "as the settings have it"
    assert answer(client, "/models/hues/predict")[0] == "1"
    assert client.post("/models/hues/load").status_code == 200, "loading twice is loading once"

    assert client.post("/models/colours/unload").json()["code"] == "invalid_parameter", "the default model stays"
    assert client.post("/models/bad/load").json()["code"] == "model_rejected"
    assert client.post("/models/nobody/load").json()["code"] == "unknown_model"
    assert client.post("/models/nobody/unload").json()["code"] == "unknown_model"
    assert [model["reference"] for model in client.get("/models").json()["models"]] == ["colours", "hues/1"]


def test_request_cannot_load_a_file(start_admin: StartApp, store_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(store_root / "colours" / "1")
    client = start_admin()

    for name in ("model.pt", "..%2fcolours", "%2e%2e"):
        assert client.post(f"/models/{name}/load").status_code == 404


def test_memory_budget_unloads_what_was_loaded_longest_unused_or_refuses(
    start_admin: StartApp, store_root: Path
) -> None:
    for name, padding in (("colours", 200_000), ("hues", 200_000), ("tints", 200_000), ("shades", 600_000)):
        if name != "colours":
            publish(store_root, version=1, name=name)
        (store_root / name / "1" / "padding").write_bytes(bytes(padding))
    client = start_admin(memory_budget_mb=2)  # two of the small ones, at four times their files

    assert client.post("/models/hues/load").status_code == 200
    assert client.post("/models/tints/load").status_code == 200
    assert [model["name"] for model in client.get("/models").json()["models"]] == ["colours", "tints"]
    refused = client.post("/models/shades/load")
    assert (refused.status_code, refused.json()["code"]) == (507, "memory_budget")
    assert "--memory-budget-mb" in refused.json()["detail"]
    assert [model["name"] for model in client.get("/models").json()["models"]] == ["colours", "tints"]


@pytest.mark.anyio
async def test_workers_that_share_a_folder_follow_each_other(store_root: Path, tmp_path: Path) -> None:
    publish(store_root, version=1, name="hues")
    settings = Settings(model="colours", model_store=store_root)

    async def start() -> tuple[Registry, StoreWatcher]:
        registry = Registry(settings, Metrics(), max_queue_items=8, runtime_folder=tmp_path)
        watcher = StoreWatcher(registry, watch_store_s=0)
        await registry.load_all()
        running.append(asyncio.create_task(watcher.run()))
        registries.append(registry)
        await until_async(lambda: registry.is_loaded)
        return registry, watcher

    running: list[asyncio.Task[None]] = []
    registries: list[Registry] = []
    try:
        (first, first_watcher), (second, second_watcher) = await start(), await start()
        await first_watcher.load("hues")
        await until_async(lambda: len(second.served) == 2)
        late, _ = await start()
        assert late.get("hues").artifact.version == "1"

        await second_watcher.unload("hues")
        await until_async(lambda: len(first.served) == len(late.served) == 1)
        with pytest.raises(UnknownModelError):
            first.get("hues")

        await asyncio.to_thread(publish, store_root, version=2)
        await first_watcher.reload("colours")
        await until_async(lambda: second.get().artifact.version == "2")
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for registry in registries:
            await asyncio.to_thread(registry.close)


def test_flooded_model_leaves_the_other_one_its_share(start_app: StartApp, store_root: Path) -> None:
    publish(store_root, version=1, name="hues")
    client = start_app(model_store=store_root, model="colours,hues", max_pending_images=8)
    service: Service = client.app.state.service  # type: ignore[attr-defined]

    with service.admission.admit(6, model="colours"):
        assert client.post("/predict", content=RED).json()["code"] == "overloaded"
        assert answer(client, "/models/hues/predict")[0] == "1"
    with pytest.raises(OverloadedError), service.admission.admit(7, model="hues"):
        pass
