"""What Vertex AI, SageMaker and an image say are defaults: our own options and variables win."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest

from app.settings import Settings
from app.settings.platforms import platform_defaults, tell_unused_storage
from tests.support.colours import export_colours


@pytest.fixture
def sagemaker(tmp_path: Path) -> Path:
    """The folder in which SageMaker puts a model."""
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


def settings(monkeypatch: pytest.MonkeyPatch, sagemaker: Path | None = None, **variables: str) -> Settings:
    """Returns the settings in an environment with these variables."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    folder = sagemaker or Path("/nowhere")
    monkeypatch.setattr(
        "app.settings.models.platform_defaults",
        lambda environment: platform_defaults(environment, sagemaker_model=folder),
    )
    return Settings()


def test_vertex_sets_port_and_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch, AIP_HTTP_PORT="8080", AIP_HEALTH_ROUTE="/h", AIP_PREDICT_ROUTE="/p")

    assert (found.host, found.port) == ("0.0.0.0", 8080)
    assert (found.vertex_health_route, found.vertex_predict_route) == ("/h", "/p")


def test_own_variables_and_options_win(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"AIP_HTTP_PORT": "8080", "PREDICTOR_PORT": "9000", "PREDICTOR_HOST": "127.0.0.1"}
    found = settings(monkeypatch, None, **variables, IMAGE_MODEL="a", PREDICTOR_MODEL="b")

    assert (found.host, found.port, found.model) == ("127.0.0.1", 9000, "b")
    assert Settings(port=1).port == 1


def test_image_says_which_model_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = settings(monkeypatch, IMAGE_MODEL="flowers", IMAGE_MODEL_STORE=str(tmp_path))

    assert (found.model, found.model_store) == ("flowers", tmp_path)


def test_sagemaker_has_a_port_of_its_own(monkeypatch: pytest.MonkeyPatch, sagemaker: Path) -> None:
    assert settings(monkeypatch, sagemaker).port == 8080
    found = settings(monkeypatch, sagemaker, SAGEMAKER_BIND_TO_PORT="9090")
    assert (found.host, found.port, found.model) == ("0.0.0.0", 9090, "imagenet")


def test_sagemakers_folder_has_a_store(monkeypatch: pytest.MonkeyPatch, sagemaker: Path) -> None:
    export_colours(sagemaker, "flowers")
    found = settings(monkeypatch, sagemaker, IMAGE_MODEL="imagenet")

    assert (found.model_store, found.model_references) == (sagemaker, ("flowers",))


def test_sagemakers_folder_has_a_published_version(
    monkeypatch: pytest.MonkeyPatch, sagemaker: Path, colours_store: Path
) -> None:
    shutil.copytree(colours_store / "colours" / "1", sagemaker, dirs_exist_ok=True)

    assert settings(monkeypatch, sagemaker).model_references == (str(sagemaker / "model.pt"),)


def test_sagemakers_folder_has_a_file(monkeypatch: pytest.MonkeyPatch, sagemaker: Path) -> None:
    (sagemaker / "mine.pt").touch()

    assert settings(monkeypatch, sagemaker).model_references == (str(sagemaker / "mine.pt"),)


def test_sagemakers_folder_without_a_model_is_told(monkeypatch: pytest.MonkeyPatch, sagemaker: Path) -> None:
    (sagemaker / "code").mkdir()

    with pytest.raises(ValueError, match="must have exactly one model; found: none"):
        settings(monkeypatch, sagemaker)


def test_several_models_begin_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch, SAGEMAKER_MULTI_MODEL="true")

    assert (found.port, found.model_references) == (8080, ())


def test_bucket_is_not_fetched_and_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    before = settings(monkeypatch).model_store
    assert settings(monkeypatch, AIP_STORAGE_URI="gs://bucket/model").model_store == before
    with caplog.at_level(logging.WARNING):
        tell_unused_storage(os.environ)
    assert "gs://bucket/model is not fetched" in caplog.text

    caplog.clear()
    assert settings(monkeypatch, AIP_STORAGE_URI="/mnt/model").model_store == Path("/mnt/model")
    tell_unused_storage(os.environ)
    assert not caplog.text
