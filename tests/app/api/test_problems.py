"""Every row of the error table can be provoked over HTTP, and is answered as the table says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.api.problems import PROBLEMS
from app.inference.torchscript_engine import TorchScriptEngine
from app.serving.service import Phase
from tests.support.colours import StartApp, applications, colour_image
from tests.support.file_structures import huge_webp
from tests.support.images import png

FORM = {"Content-Type": "multipart/form-data; boundary=xyz"}


HUGE_WEBP = huge_webp(10_000, 10_000)
HUGE_PNG = png([bytes(60)], width=20_000, height=20_000, bit_depth=8, colour_type=2)
FORM_WITHOUT_FILE = b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--xyz--\r\n'

REQUESTS: dict[str, tuple[str, dict[str, object]]] = {
    "empty_body": ("/predict", {"content": b""}),
    "corrupt_image": ("/predict", {"content": colour_image("red")[:-30]}),
    "unknown_model": ("/models/nobody/predict", {"content": colour_image("red")}),
    "not_found": ("/nowhere", {"content": b"x"}),
    "method_not_allowed": ("/metrics", {"content": b"x"}),
    "body_too_large": ("/predict", {"content": b"x" * 20_001}),
    "too_much_memory": ("/predict", {"content": HUGE_WEBP}),
    "too_many_pixels": ("/predict", {"content": HUGE_PNG}),
    "unsupported_format": ("/predict", {"content": b"%PDF-1.7"}),
    "unsupported_encoding": ("/predict", {"content": b"x", "headers": {"Content-Encoding": "br"}}),
    "missing_file": ("/predict", {"content": FORM_WITHOUT_FILE, "headers": FORM}),
    "invalid_parameter": ("/predict?top_k=4", {"content": colour_image("red")}),
}


def check(response: object, code: str) -> None:
    """Holds a response to the table and to RFC 9457."""
    assert hasattr(response, "json")
    assert hasattr(response, "status_code")
    assert hasattr(response, "headers")
    problem = response.json()
    assert response.headers["Content-Type"] == "application/problem+json"
    assert set(problem) == {"type", "title", "status", "detail", "code", "request_id"}
    assert (problem["code"], problem["status"], problem["title"]) == (code, *PROBLEMS[code])
    assert response.status_code == PROBLEMS[code].status
    assert problem["request_id"] == response.headers["X-Request-ID"]
    assert problem["type"].endswith(code)
    assert len(problem["detail"]) > 10
    assert "Traceback" not in problem["detail"]
    assert ("Retry-After" in response.headers) == (PROBLEMS[code].status == 503)


@pytest.fixture(scope="module")
def client_of_small_bodies(colours_store: Path) -> Iterator[TestClient]:
    """An application that takes no more than 20 kB at once, and decodes in no more than 1 GB."""
    with applications(colours_store) as start:
        yield start(max_body_bytes=20_000, max_decode_mb=1_000)


ELSEWHERE = {"too_much_memory"}  # another process looks at the image


@pytest.mark.parametrize(
    "code", [pytest.param(code, marks=pytest.mark.slow if code in ELSEWHERE else ()) for code in REQUESTS]
)
def test_bad_request_gets_its_problem(client_of_small_bodies: TestClient, code: str) -> None:
    path, request = REQUESTS[code]
    check(client_of_small_bodies.post(path, **request), code)  # type: ignore[arg-type]


def test_body_is_counted_while_it_is_read(client_of_small_bodies: TestClient) -> None:
    sent = 0

    def endless() -> object:
        nonlocal sent
        while sent < 10_000_000:
            sent += 5_000
            yield b"x" * 5_000

    check(client_of_small_bodies.post("/predict", content=endless()), "body_too_large")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no body"),
        (b"no boundary in here", "not a well-formed form"),
        (b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\nabc', "cut short"),
        (b"--xyz\r\n\r\nabc\r\n--xyz--\r\n", "no file"),
        (
            b'--xyz\r\nContent-Disposition: form-data; name="x"; filename="a"\r\n\r\na\r\n' * 2 + b"--xyz--\r\n",
            "2 files",
        ),
        (b"--xyz\r\n\r\n\r\n" * 300 + b"--xyz--\r\n", "more than 256 parts"),
        (b"--xyz\r\nContent-Type: " + b"x" * 10_000 + b"\r\n\r\n\r\n--xyz--\r\n", "header"),
    ],
)
def test_unusable_form_is_explained(client: TestClient, body: bytes, reason: str) -> None:
    response = client.post("/predict", content=body, headers=FORM)

    assert response.status_code in {400, 422}
    assert reason in response.json()["detail"].lower()


def test_form_without_boundary_says_who_sets_it(client: TestClient) -> None:
    body = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n--xyz--\r\n'
    response = client.post("/predict", content=body, headers={"Content-Type": "multipart/form-data"})

    check(response, "missing_file")
    assert "boundary" in response.json()["detail"]


def test_too_many_images_in_a_batch_are_refused(start_app: StartApp) -> None:
    client = start_app(max_images_per_request=2)
    check(client.post("/predict/batch", files=[("files", colour_image("red"))] * 3), "invalid_parameter")


def test_format_that_is_switched_off_is_refused(start_app: StartApp) -> None:
    client = start_app(formats="jpeg,webp")
    response = client.post("/predict", content=colour_image("red"))

    check(response, "unsupported_format")
    assert "PNG images are switched off" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/models/colours/predict"])
@pytest.mark.parametrize("top_k", ["0", "-1", "x", "1.5", "", "9" * 400])
def test_top_k_out_of_range_is_refused(client: TestClient, path: str, top_k: str) -> None:
    response = client.post(f"{path}?top_k={top_k}", content=colour_image("red"))

    check(response, "invalid_parameter")
    assert "top_k" in response.json()["detail"]


def test_wrong_method_names_the_right_ones(client: TestClient) -> None:
    response = client.delete("/predict")

    check(response, "method_not_allowed")
    assert response.headers["Allow"] == "POST, PUT"


def test_unknown_version_names_those_that_serve(client: TestClient) -> None:
    response = client.post("/models/colours/versions/9/predict", content=colour_image("red"))

    check(response, "unknown_model")
    assert "colours/1" in response.json()["detail"]


def test_full_service_refuses_and_tells_when_to_come_back(start_app: StartApp, monkeypatch: pytest.MonkeyPatch) -> None:
    client = start_app(max_pending_images=1)
    started, release = threading.Event(), threading.Event()
    computed = TorchScriptEngine.__call__

    def held_up(engine: TorchScriptEngine, images: object) -> object:
        started.set()
        assert release.wait(30)
        return computed(engine, images)  # type: ignore[arg-type]

    monkeypatch.setattr(TorchScriptEngine, "__call__", held_up)
    answers: list[int] = []
    first = threading.Thread(
        target=lambda: answers.append(client.post("/predict", content=colour_image("red")).status_code)
    )
    first.start()
    assert started.wait(30)
    check(client.post("/predict", content=colour_image("red")), "overloaded")
    assert client.get("/health/ready").status_code == 200
    release.set()
    first.join()

    assert answers == [200]
    assert client.post("/predict", content=colour_image("red")).status_code == 200


def test_batch_larger_than_the_service_holds_is_refused_whole(start_app: StartApp) -> None:
    client = start_app(max_pending_images=2)

    check(client.post("/predict/batch", files=[("files", colour_image("red"))] * 3), "overloaded")
    assert client.post("/predict/batch", files=[("files", colour_image("red"))] * 2).status_code == 200


def hold_up_inference(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Lets every batch wait until the event that is returned is set."""
    release = threading.Event()
    computed = TorchScriptEngine.__call__

    def held_up(engine: TorchScriptEngine, images: object) -> object:
        release.wait(30)
        return computed(engine, images)  # type: ignore[arg-type]

    monkeypatch.setattr(TorchScriptEngine, "__call__", held_up)
    return release


def test_request_whose_time_is_up_gets_504(start_app: StartApp, monkeypatch: pytest.MonkeyPatch) -> None:
    client = start_app(request_timeout_s=0.05)
    release = hold_up_inference(monkeypatch)
    check(client.post("/predict", content=colour_image("red")), "deadline_exceeded")
    release.set()


def test_client_may_ask_for_less_time_but_not_for_more(start_app: StartApp, monkeypatch: pytest.MonkeyPatch) -> None:
    client = start_app(request_timeout_s=20)
    release = hold_up_inference(monkeypatch)
    for path in ("/predict", "/predict/batch", "/models/colours/predict", "/models/colours/versions/1/predict"):
        check(
            client.post(path, content=colour_image("red"), headers={"X-Request-Timeout-Ms": "50"}), "deadline_exceeded"
        )
    release.set()
    assert client.app.state.service.deadline_of(100, patience=160) == 120  # type: ignore[attr-defined]


@pytest.mark.parametrize("timeout_ms", ["0", "-5", "soon", "1.5", ""])
def test_time_that_is_no_time_is_refused(client: TestClient, timeout_ms: str) -> None:
    response = client.post("/predict", content=colour_image("red"), headers={"X-Request-Timeout-Ms": timeout_ms})

    check(response, "invalid_parameter")
    assert "X-Request-Timeout-Ms" in response.json()["detail"]


def test_client_may_have_all_the_time_in_the_world(client: TestClient) -> None:
    headers = {"X-Request-Timeout-Ms": "9" * 400}
    assert client.post("/predict", content=colour_image("red"), headers=headers).status_code == 200


def test_failing_model_is_an_internal_error_without_a_traceback(
    own_client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_engine: TorchScriptEngine, _images: object) -> object:
        raise RuntimeError("secret reason")

    monkeypatch.setattr(TorchScriptEngine, "__call__", fail)
    response = own_client.post("/predict", content=colour_image("red"))

    check(response, "internal")
    assert "secret" not in response.text
    assert response.json()["request_id"] in caplog.text
    assert "secret reason" in caplog.text


def test_one_failing_image_does_not_fail_its_batch(own_client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = TorchScriptEngine.__call__

    def fail_on_blue(engine: TorchScriptEngine, images: object) -> object:
        assert isinstance(images, list)
        if any(image[..., 2].mean() > 150 for image in images):
            raise RuntimeError("blue")
        return computed(engine, images)

    monkeypatch.setattr(TorchScriptEngine, "__call__", fail_on_blue)
    files = [("files", colour_image(colour)) for colour in ("red", "blue", "green")]
    results = own_client.post("/predict/batch?top_k=1", files=files).json()["results"]

    assert results[0]["predictions"][0]["class_name"] == "red"
    assert results[1]["error"]["code"] == "internal"
    assert results[2]["predictions"][0]["class_name"] == "green"


def test_draining_service_is_unready_but_answers_until_it_closes(own_client: TestClient) -> None:
    service = own_client.app.state.service  # type: ignore[attr-defined]
    service.phase = Phase.DRAINING
    check(own_client.get("/health/ready"), "draining")
    assert own_client.post("/predict", content=colour_image("red")).status_code == 200
    assert own_client.get("/health/live").status_code == 200

    service.phase = Phase.CLOSING
    check(own_client.post("/predict", content=colour_image("red")), "draining")


def test_service_that_still_loads_is_live_but_not_ready(start_app: StartApp, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("app.models.registry.Registry._load", never)
    client = start_app(wait=False)

    assert client.get("/health/live").status_code == 200
    check(client.get("/health/startup"), "not_ready")
    check(client.get("/health/ready"), "not_ready")
    check(client.post("/predict", content=colour_image("red")), "not_ready")
    assert client.get("/models/colours").json()["state"] == "loading"


def test_service_without_its_model_is_live_but_not_ready(start_app: StartApp, tmp_path: Path) -> None:
    client = start_app(model_store=tmp_path)

    assert client.get("/health/live").status_code == 200
    assert client.get("/health/startup").status_code == 200
    check(client.get("/health/ready"), "not_ready")
    assert "No model 'colours'" in client.get("/health/ready").json()["detail"]
    check(client.post("/predict", content=colour_image("red")), "not_ready")


def test_every_code_of_the_table_is_provoked_here() -> None:
    elsewhere = {"overloaded", "deadline_exceeded", "internal", "draining", "not_ready"}
    elsewhere |= {"malformed_request", "request_too_slow", "head_too_large"}  # tests/app/test_protocol.py
    elsewhere |= {"answer_too_large"}  # test_large_answers.py
    elsewhere |= {"too_much_work"}  # tests/app/images/isolation/test_decoders.py
    elsewhere |= {"model_rejected", "memory_budget"}  # tests/app/test_upgrades.py
    elsewhere |= {"unauthorized", "forbidden"}  # tests/app/test_auth.py
    elsewhere |= {"invalid_request", "unknown_version", "conflict", "not_supported"}  # tests/app/protocols/

    assert set(REQUESTS) | elsewhere == set(PROBLEMS)
