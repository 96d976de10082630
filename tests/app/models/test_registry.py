"""A damaged or wrong model is never served and says why; a plain one is served as unverified."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from starlette.testclient import TestClient

from app.store.manifest import MANIFEST_FILE, MODEL_FILE
from app.store.publishing import hash_file
from tests.support.colours import StartApp, colour_image, export_colours
from tests.support.damaged_versions import (
    Damage,
    edit_manifest,
    flip_a_byte,
    nudge_weights,
    swap_weights,
    truncate,
    truncate_and_rehash,
)


def unready_reason(client: TestClient) -> str:
    """Checks that the service is live, not ready and answers no image; returns the reason."""
    assert client.get("/health/live").status_code == 200
    response = client.get("/health/ready")
    assert response.status_code == 503
    assert client.post("/predict", content=colour_image("red")).status_code == 503
    reason: str = response.json()["detail"]
    return reason


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(truncate, "not the file that was published", id="model cut short"),
        pytest.param(flip_a_byte, "not the file that was published", id="a byte flipped"),
        pytest.param(truncate_and_rehash, "cannot be loaded as TorchScript", id="cut short before it was hashed"),
        pytest.param(swap_weights, "golden check failed: image 0 is", id="other weights"),
        pytest.param(nudge_weights, "golden check failed: a probability deviates by", id="weights off by little"),
        pytest.param(lambda version: (version / MODEL_FILE).unlink(), "cannot be read", id="no model"),
        pytest.param(lambda version: (version / MANIFEST_FILE).unlink(), "cannot be read", id="no manifest"),
        pytest.param(
            lambda version: (version / MANIFEST_FILE).write_text("{"), "not a valid manifest", id="manifest not JSON"
        ),
        pytest.param(lambda version: edit_manifest(version, class_names=None), "class_names", id="no class names"),
        pytest.param(
            lambda version: edit_manifest(version, class_names=["a", "b", "c"]),
            "other class names",
            id="class names of another model",
        ),
        pytest.param(lambda version: edit_manifest(version, files={}), "lists no files", id="no files listed"),
        pytest.param(
            lambda version: edit_manifest(version, files={"../x": hash_file(version / MODEL_FILE).model_dump()}),
            "../x",
            id="a file outside its folder",
        ),
        pytest.param(lambda version: edit_manifest(version, name="other"), "other/1", id="name of another model"),
        pytest.param(lambda version: shutil.rmtree(version), "No model 'colours'", id="folder deleted"),
    ],
)
def test_damaged_model_never_serves_and_says_why(
    start_app: StartApp, store_root: Path, damage: Damage, reason: str
) -> None:
    damage(store_root / "colours" / "1")

    assert reason in unready_reason(start_app(model_store=store_root))


def test_failed_model_does_not_keep_others_from_serving(start_app: StartApp, store_root: Path) -> None:
    export_colours(store_root, "hues")
    truncate(store_root / "hues" / "1")
    client = start_app(model_store=store_root, model="colours,hues")

    assert client.get("/health/ready").status_code == 200
    assert client.post("/predict", content=colour_image("red")).status_code == 200
    assert client.post("/models/hues/predict", content=colour_image("red")).status_code == 503
    description = client.get("/models/hues").json()
    assert description["state"] == "failed"
    assert "not the file that was published" in description["reason"]
    assert 'predictor_model_loads_total{outcome="failed"} 1.0' in client.get("/metrics").text


def test_highest_version_serves_unless_one_is_pinned(start_app: StartApp, store_root: Path) -> None:
    for _ in range(10):
        export_colours(store_root)

    assert start_app(model_store=store_root).get("/models/colours").json()["version"] == "11"
    assert start_app(model_store=store_root, model="colours/2").get("/models/colours").json()["version"] == "2"


def test_published_file_serves_alone_and_verified(start_app: StartApp, store_root: Path, tmp_path: Path) -> None:
    alone = tmp_path / "some name.pt"
    shutil.copy(store_root / "colours" / "1" / MODEL_FILE, alone)
    client = start_app(model=str(alone), model_store=tmp_path / "no store")
    description = client.get("/models").json()["models"][0]

    assert (description["name"], description["version"], description["verified"]) == ("colours", "1", True)
    assert client.post("/predict", content=colour_image("blue")).json()["predictions"][0]["class_name"] == "blue"


def test_golden_images_may_be_of_a_format_that_is_switched_off(start_app: StartApp) -> None:
    assert start_app(formats="JPEG").get("/health/ready").status_code == 200


def test_unknown_device_is_a_reason_not_to_be_ready(start_app: StartApp) -> None:
    if torch.cuda.device_count() > 7:
        pytest.skip("this machine has eight GPUs")

    assert "cuda:7" in unready_reason(start_app(device="cuda:7"))
