"""Without a key only the probes open; a key opens what its role says, in either header."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import BaseModel
from starlette.routing import BaseRoute, Route
from starlette.testclient import TestClient
from starlette.types import Message, Scope

from app.api.auth import ADMIN_TAG, OPEN_PATHS, add_admin_routes, require_admin
from app.api.keys import new_key
from tests.support.colours import StartApp, applications, colour_image

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND")
KEY, KEY_LINE = new_key("shop")
METRICS_KEY, METRICS_LINE = new_key("prometheus", "metrics")
ADMIN_KEY, ADMIN_LINE = new_key("root")


class _Memory(BaseModel):
    megabytes: int


router = APIRouter(prefix="/models", tags=[ADMIN_TAG], dependencies=[Depends(require_admin)])


@router.post("/{name}/shrink")
async def shrink(name: str, memory: _Memory) -> dict[str, object]:
    """A route as those of reload and unload are."""
    return {"name": name, "megabytes": memory.megabytes}


SHRINK = {"url": "/models/colours/shrink", "json": {"megabytes": 7}}


@pytest.fixture
def admin_keys_file(tmp_path: Path) -> Path:
    (tmp_path / "admins").write_text(ADMIN_LINE)
    return tmp_path / "admins"


def _guard(start: StartApp, admin_keys_file: Path) -> TestClient:
    client = start(api_keys=f"{KEY_LINE},{METRICS_LINE}", admin_keys_file=admin_keys_file)
    add_admin_routes(_app(client), router)
    return client


@pytest.fixture(scope="module")
def guarded(colours_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service with keys of every kind, and a route for admins."""
    admin_keys_file = tmp_path_factory.mktemp("keys") / "admins"
    admin_keys_file.write_text(ADMIN_LINE)
    with applications(colours_store) as start:
        yield _guard(start, admin_keys_file)


def _app(client: TestClient) -> FastAPI:
    assert isinstance(client.app, FastAPI)
    return client.app


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _all_paths(routes: list[BaseRoute]) -> Iterator[str]:
    """Every path of the application, its parameters filled in; fails on a kind of route that it does not know."""
    for route in routes:
        if isinstance(route, Route):
            path = route.path.replace("{name}", "colours").replace("{version}", "1")
            yield path.replace("{endpoint}", "any")
        else:
            included = getattr(route, "original_router", None)
            assert isinstance(included, APIRouter), route
            yield from _all_paths(included.routes)


UNDOCUMENTED = {"/healthz", "/livez", "/readyz", "/ping", "/health"}
OPEN_PATHS_OF_PROTOCOLS = {
    "/ping",
    "/health",
    "/v1/models/colours",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/colours/ready",
    "/v2/models/colours/versions/1/ready",
}


def test_nothing_opens_without_a_key_but_the_probes(guarded: TestClient) -> None:
    paths = sorted(
        {*_all_paths(_app(guarded).routes), "/nowhere", "/models/colours/", "/health/live/", "//health/live"}
    )
    assert {"/", "/docs", "/openapi.json", "/metrics", "/models", "/predict", "/models/colours/shrink"} <= set(paths)

    opened = set()
    for path in paths:
        for method in METHODS:
            for headers in ({}, _bearer("wrong"), {"X-API-Key": "wrong"}):
                response = guarded.request(method, path, headers=headers, follow_redirects=False)
                if response.status_code != 401:
                    opened.add(path)
                elif method != "HEAD":
                    answer = response.json()
                    assert answer["code"] in {"unauthorized", 401}
    assert opened == {path for path in paths if path.removesuffix("/") in OPEN_PATHS | OPEN_PATHS_OF_PROTOCOLS}
    assert {"/health/live", "/health/ready", "/health/startup"} <= opened


@pytest.mark.parametrize("headers", [_bearer(KEY), {"Authorization": f"bearer  {KEY} "}, {"X-API-Key": KEY},
                                     {"Authorization": f"Bearer\t{KEY}"}, {"Authorization": f"BEARER \t {KEY}\t "},
                                     {"X-API-Key": f"{KEY} \t"}, _bearer(ADMIN_KEY)])  # fmt: skip
def test_key_opens_the_service_in_either_header(guarded: TestClient, headers: dict[str, str]) -> None:
    answer = guarded.post("/predict", content=colour_image("red"), headers=headers)

    assert answer.status_code == 200
    assert {guarded.get(path, headers=headers).status_code for path in ("/", "/docs", "/metrics", "/models")} == {200}


@pytest.mark.parametrize("headers", [{"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}, {"X-API-Key": ""},
                                     {"Authorization": "Bearer"}, _bearer(KEY.lower()), {"Cookie": f"key={KEY}"},
                                     _bearer(KEY_LINE.partition(":")[2])])  # fmt: skip
def test_anything_else_does_not(guarded: TestClient, headers: dict[str, str]) -> None:
    response = guarded.get("/models", headers=headers)

    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert response.headers["X-Request-ID"] == response.json()["request_id"]
    assert KEY not in response.text
    assert guarded.get(f"/models?key={KEY}").status_code == 401  # a URL ends up in logs


@pytest.mark.anyio
async def test_stranger_is_answered_before_the_body_is_read(guarded: TestClient) -> None:
    answers: list[Message] = []

    async def never() -> Message:
        raise AssertionError("The body was read.")

    async def send(message: Message) -> None:
        answers.append(message)

    for path in ("/predict", "/models/colours/shrink"):
        scope: Scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
        await _app(guarded)(scope, never, send)

    assert [message["status"] for message in answers if message["type"] == "http.response.start"] == [401, 401]


def test_strangers_are_counted_and_the_name_of_a_key_is_told_but_not_the_key(
    start_app: StartApp, admin_keys_file: Path
) -> None:
    guarded = _guard(start_app, admin_keys_file)

    @_app(guarded).get("/who")
    async def who(request: Request) -> dict[str, str]:
        return {name: str(value) for name, value in request.state._state.items()}

    state = guarded.get("/who", headers=_bearer(KEY))
    guarded.get("/who")
    metrics = guarded.get("/metrics", headers=_bearer(METRICS_KEY)).text

    assert state.json()["api_key_name"] == "shop"
    assert KEY not in state.text
    assert 'code="unauthorized",method="GET",route="unmatched",status="401"} 1.0' in metrics


def test_metrics_key_opens_the_metrics_alone(guarded: TestClient) -> None:
    assert guarded.get("/metrics", headers=_bearer(METRICS_KEY)).status_code == 200
    for path in ("/models", "/models/colours/shrink"):
        response = guarded.get(path, headers=_bearer(METRICS_KEY))
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")


def test_metrics_can_be_left_open(start_app: StartApp) -> None:
    client = start_app(api_keys=KEY_LINE, metrics_open=True)

    assert client.get("/metrics").status_code == 200
    assert client.get("/models").status_code == 401


def test_admin_route_tells_strangers_clients_and_admins_apart(guarded: TestClient) -> None:
    without, client, admin = (guarded.post(**SHRINK, headers=headers)  # type: ignore[arg-type]
                              for headers in ({}, _bearer(KEY), _bearer(ADMIN_KEY)))  # fmt: skip

    assert (without.status_code, without.json()["code"]) == (401, "unauthorized")
    assert (client.status_code, client.json()["code"]) == (403, "forbidden")
    assert (admin.status_code, admin.json()) == (200, {"name": "colours", "megabytes": 7})


@pytest.mark.parametrize("plainly_included", [False, True])
def test_without_admin_keys_there_are_no_admin_routes(start_app: StartApp, plainly_included: bool) -> None:
    client = start_app()
    if plainly_included:
        _app(client).include_router(router)
    else:
        add_admin_routes(_app(client), router)
    response = client.post(**SHRINK, headers=_bearer(ADMIN_KEY))  # type: ignore[arg-type]

    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert plainly_included or "shrink" not in client.get("/openapi.json").text


def test_admin_keys_alone_leave_the_rest_open(start_app: StartApp, admin_keys_file: Path) -> None:
    client = start_app(admin_keys_file=admin_keys_file)
    add_admin_routes(_app(client), router)

    assert client.post("/predict", content=colour_image("red"), headers=_bearer("wrong")).status_code == 200
    statuses = [client.post(**SHRINK, headers=headers).status_code  # type: ignore[arg-type]
                for headers in ({}, _bearer("wrong"), _bearer(ADMIN_KEY))]  # fmt: skip
    assert statuses == [401, 401, 200]


def test_metrics_role_in_the_admins_file_makes_no_admin(start_app: StartApp, tmp_path: Path) -> None:
    (tmp_path / "admins").write_text(f"{ADMIN_LINE}\n{METRICS_LINE}")
    client = start_app(admin_keys_file=tmp_path / "admins")
    add_admin_routes(_app(client), router)

    assert client.post(**SHRINK, headers=_bearer(METRICS_KEY)).status_code == 401  # type: ignore[arg-type]


def test_pages_of_allowed_origins_may_send_keys_and_read_refusals(start_app: StartApp) -> None:
    client = start_app(api_keys=KEY_LINE, cors_origins="https://shop.example")
    origin = {"Origin": "https://shop.example"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-api-key"}
    preflight = client.options("/predict", headers=origin | asked)
    refusal = client.post("/predict", content=colour_image("red"), headers=origin)

    assert preflight.status_code == 200
    assert {"authorization", "x-api-key"} <= set(preflight.headers["Access-Control-Allow-Headers"].lower().split(", "))
    assert refusal.status_code == 401
    assert refusal.headers["Access-Control-Allow-Origin"] == "https://shop.example"


def test_openapi_document_says_what_needs_a_key(guarded: TestClient) -> None:
    document = guarded.get("/openapi.json", headers=_bearer(KEY)).json()
    operations = {path: next(iter(item.values())) for path, item in document["paths"].items()}
    without = {path for path, operation in operations.items() if "security" not in operation}
    filled = {path.replace("{name}", "colours").replace("{version}", "1") for path in without}

    assert filled == (OPEN_PATHS | OPEN_PATHS_OF_PROTOCOLS) - UNDOCUMENTED
    assert "401" in operations["/predict"]["responses"]
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}


def test_open_service_asks_for_no_key(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    assert "securitySchemes" not in document["components"]
    assert client.get("/models", headers=_bearer("whatever")).status_code == 200
