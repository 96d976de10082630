"""What pages of other origins may ask for, and where the interface's document points."""

from __future__ import annotations

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


def test_other_origins_are_not_allowed_by_default(client: TestClient) -> None:
    response = client.post("/predict", content=colour_image("red"), headers={"Origin": "https://shop.example"})

    assert "Access-Control-Allow-Origin" not in response.headers
