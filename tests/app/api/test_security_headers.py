"""Every response has the headers that protect browsers, and none that describe the server."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.support.colours import StartApp, applications, colour_image


@pytest.fixture(scope="module")
def client(colours_store: Path) -> Iterator[TestClient]:
    """An application that touches no file between requests: it neither looks at its store nor samples its process."""
    with pytest.MonkeyPatch.context() as patch, applications(colours_store) as start:
        patch.setattr("app.serving.gauges._INTERVAL_S", 3600.0)
        yield start(watch_store_s=0)


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/models", "/metrics", "/health/live", "/nowhere",
                                  "/static-offline-docs/swagger-ui.css"])  # fmt: skip
def test_every_answer_has_the_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "Strict-Transport-Security" not in headers  # browsers must ignore it over HTTP, RFC 6797


def test_answers_nobody_planned_have_them_too(start_app: StartApp) -> None:
    client = start_app(cors_origins="https://shop.example", max_body_bytes=10)
    preflight = client.options(
        "/predict", headers={"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    )
    client.app.state.service.check_ready = None  # type: ignore[attr-defined]
    broken = client.get("/health/ready")
    refused = client.post("/predict", content=colour_image("red"))

    assert (preflight.status_code, refused.status_code, broken.status_code) == (200, 413, 500)
    for response in (preflight, broken, refused):
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "Content-Security-Policy" in response.headers


def test_predictions_are_kept_nowhere(client: TestClient) -> None:
    assert client.post("/predict", content=colour_image("red")).headers["Cache-Control"] == "no-store"


@pytest.mark.in_process
def test_over_https_browsers_are_told_to_stay_there(client: TestClient) -> None:
    assert "max-age=" in client.get("https://testserver/health/live").headers["Strict-Transport-Security"]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_page_may_run_its_own_scripts_and_no_others(client: TestClient, path: str) -> None:
    response = client.get(path, headers={"Accept": "text/html"})
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))

    inline = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    assert len(inline) == 1
    digest = base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()
    assert policy["script-src"].split()[-1] == f"'sha256-{digest}'"
    assert "unsafe" not in policy["script-src"]
    assert set(re.findall(r"<script\b[^>]*>", response.text)) <= {
        "<script>",
        '<script src="static-offline-docs/swagger-ui-bundle.js">',
    }
    assert not re.search(r"<[^>]+\s(style|on\w+)=", response.text)  # neither would be allowed to work
    for source in re.findall(r'(?:src|href)="(static[^"]+)"', response.text):
        assert client.get(f"/{source}").status_code == 200


@pytest.mark.parametrize("path", ["/health/live", "/docs", "/nowhere"])
def test_answers_name_no_software_and_no_version(client: TestClient, path: str) -> None:
    response = client.get(path)

    assert not {"server", "x-powered-by", "via"} & set(response.headers)
    assert not re.search(r"fastapi|uvicorn|starlette|python", response.text, re.IGNORECASE)
    assert client.get("/openapi.json").json()["info"]["version"] == "1"  # of the interface, which OpenAPI wants


@pytest.mark.parametrize(
    "name",
    [
        "../colours", "..%2Fcolours", "%2e%2e", "..%2f..%2fetc%2fpasswd", "colours%2F1", "%00", "colours%00", "store",
        "file:%2F%2F%2Fetc%2Fpasswd", "http:%2F%2F127.0.0.1%2Fx", "model.pt", "~root", "C:%5Cwindows",
    ],
)  # fmt: skip
def test_no_name_in_a_path_reaches_the_file_system(
    client: TestClient, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are looked up among the models that serve; whatever touched a file while they are would fail here."""
    paths = [f"/models/{name}", f"/models/{name}/predict", f"/models/colours/versions/{name}/predict",
             f"/static-offline-docs/{name}"]  # fmt: skip
    with monkeypatch.context() as patch:
        for function in ("open", "stat", "lstat", "scandir", "listdir"):
            patch.setattr(f"os.{function}", _refuse)
        patch.setattr("builtins.open", _refuse)
        patch.setattr("io.open", _refuse)
        responses = [client.request("POST" if "predict" in path else "GET", path, content=b"x") for path in paths]

    assert {response.status_code for response in responses} <= {404, 405}
    assert all("root:x" not in response.text for response in responses)


def _refuse(*arguments: object, **_options: object) -> None:
    raise AssertionError(f"A file was touched: {arguments}")
