"""What pages of other origins may ask for, and where the interface's document points."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import pytest
from starlette.testclient import TestClient

from tests.support.colours import StartApp, colour_image


def test_pages_of_allowed_origins_may_call_and_read_the_headers(start_app: StartApp) -> None:
    client = start_app(cors_origins="https://shop.example, https://other.example")
    headers = {"Origin": "https://shop.example"}
    answer = client.post("/predict", content=colour_image("red"), headers=headers)
    preflight = client.options("/predict", headers=headers | {"Access-Control-Request-Method": "POST"})

    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert "Server-Timing" in answer.headers["Access-Control-Expose-Headers"]
    assert preflight.status_code == 200
    assert (
        "Access-Control-Allow-Origin" not in client.get("/models", headers={"Origin": "https://evil.example"}).headers
    )


def test_origin_is_allowed_however_it_is_written(start_app: StartApp) -> None:
    client = start_app(cors_origins="HTTPS://Shop.example:443/, http://localhost:3000/")

    for origin in ("https://shop.example", "http://localhost:3000"):
        assert client.get("/models", headers={"Origin": origin}).headers["Access-Control-Allow-Origin"] == origin


@pytest.mark.parametrize(
    ("setting", "asked", "allowed"),
    [
        ("", "authorization, x-api-key, x-request-id, x-request-timeout-ms", True),
        ("", "traceparent, tracestate, baggage, sentry-trace", True),
        ("", "x-requested-with", True),
        ("", "x-shop", False),
        ("X-Shop, X-Other", "x-shop, traceparent", True),
        ("*", "x-anything", True),
    ],
)
def test_preflight_allows_the_headers_that_pages_send(
    start_app: StartApp, setting: str, asked: str, allowed: bool
) -> None:
    client = start_app(cors_origins="https://shop.example", cors_headers=setting)
    headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    preflight = client.options("/predict", headers=headers | {"Access-Control-Request-Headers": asked})

    assert (preflight.status_code == 200) is allowed
    assert not allowed or all(
        name in preflight.headers["Access-Control-Allow-Headers"].lower() for name in asked.split(", ")
    )


def test_interface_document_points_below_the_path_that_a_proxy_serves_it_from(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    for root in ("https://host.example/", "https://host.example/img/"):
        server = urljoin(f"{root}openapi.json", document["servers"][0]["url"])
        assert server == root
        assert all(path.startswith("/") for path in document["paths"])


@pytest.mark.parametrize("host", ["shop.example", "evil.example"])
@pytest.mark.parametrize("path", ["/predict/", "/models/colours/predict/", "/models/colours/versions/1/predict/"])
def test_path_with_a_slash_at_its_end_is_the_same_route(client: TestClient, path: str, host: str) -> None:
    response = client.post(path, content=colour_image("red"), headers={"Host": host}, follow_redirects=False)

    assert response.status_code == 200
    assert response.json()["predictions"][0]["class_name"] == "red"
    assert "Location" not in response.headers


@pytest.mark.parametrize("path", ["/models/", "/health/ready/", "/healthz/", "/metrics/", "/openapi.json/"])
def test_other_paths_may_have_a_slash_at_their_end_too(client: TestClient, path: str) -> None:
    assert client.get(path, follow_redirects=False).status_code == 200
    assert client.get(f"{path}/", follow_redirects=False).status_code == 404


@pytest.mark.in_process
@pytest.mark.parametrize("page", ["/docs", "/docs/"])
def test_documentation_finds_its_files_with_and_without_a_slash(client: TestClient, page: str) -> None:
    html = client.get(page, follow_redirects=False).text
    named = re.findall(r'(?:href|src)="([^"]+)"|url: \'([^\']+)\'', html)

    assert len(named) == 4
    for relative in filter(None, (name for pair in named for name in pair)):
        assert client.get(urljoin(f"http://testserver{page}", relative)).status_code == 200


def test_other_origins_are_not_allowed_by_default(client: TestClient) -> None:
    response = client.post("/predict", content=colour_image("red"), headers={"Origin": "https://shop.example"})

    assert "Access-Control-Allow-Origin" not in response.headers
