"""What deploy/kserve/ asks the service for is what the service has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.support.colours import export_colours

FOLDER = Path(__file__).parents[2] / "deploy" / "kserve"


@pytest.fixture
def runtime() -> dict[str, Any]:
    """The serving runtime."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / "cluster-serving-runtime.yaml").read_text(encoding="utf-8"))
    return found


def test_service_of_kserve_has_its_runtime_and_its_format(runtime: dict[str, Any]) -> None:
    service = yaml.safe_load((FOLDER / "inference-service.yaml").read_text(encoding="utf-8"))
    model = service["spec"]["predictor"]["model"]

    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in {each["name"] for each in runtime["spec"]["supportedModelFormats"]}
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]


def test_arguments_of_the_runtime_serve_the_mounted_model(runtime: dict[str, Any], tmp_path: Path) -> None:
    [container] = runtime["spec"]["containers"]
    program, command, *options = container["args"]
    assert (program, command) == ("image-predictor", "serve")
    mounted = export_colours(tmp_path / "store")
    filled = [each.replace("{{.Name}}", "flowers").replace("/mnt/models", str(mounted)) for each in options]
    given = dict(each.removeprefix("--").split("=", 1) for each in filled)
    settings = Settings(**given)
    assert settings.port == container["ports"][0]["containerPort"]

    with TestClient(create_app(settings)) as client:
        while client.get("/health/startup").status_code != 200:
            pass
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            assert client.get(container[probe]["httpGet"]["path"]).status_code == 200
        assert client.get("/v1/models/flowers").json() == {"name": "flowers", "ready": True}
        assert client.get("/v2/models/flowers/ready").status_code == 200
        annotations = runtime["metadata"]["annotations"]
        assert client.get(annotations["prometheus.kserve.io/path"]).status_code == 200
