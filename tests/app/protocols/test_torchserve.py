"""TorchServe's clients get what they got, and errors in its shape and its words."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.serving.service import Phase
from tests.app.protocols.conftest import API_KEYS, KEY, MODELS
from tests.support.colours import StartApp
from tests.support.images import png


def check_error(response: Any, status: int, kind: str, message: str | None = None) -> None:
    """Holds a response to TorchServe's shape of errors."""
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/json"
    assert set(response.json()) == {"code", "type", "message"}
    assert (response.json()["code"], response.json()["type"]) == (status, kind)
    assert message is None or response.json()["message"] == message
    assert response.headers["X-Request-ID"]
    assert ("Retry-After" in response.headers) == (status == 503)


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_ping_says_healthy(service: TestClient, method: str) -> None:
    response = service.request(method, "/ping")

    assert response.status_code == 200
    assert method == "HEAD" or response.json() == {"status": "Healthy"}


def test_ping_says_unhealthy_without_a_model(start: StartApp) -> None:
    response = start(model="nobody").get("/ping")

    assert (response.status_code, response.json()) == (503, {"status": "Unhealthy"})
    assert response.headers["Retry-After"]


def test_answer_has_the_five_best_or_fewer(service: TestClient, image: bytes) -> None:
    for name, count in MODELS.items():
        assert len(service.post(f"/predictions/{name}", content=image).json()) == min(5, count)


@pytest.mark.parametrize("version", ["1", "1.0"])
def test_version_may_be_written_as_its_clients_write_it(service: TestClient, image: bytes, version: str) -> None:
    expected = service.post("/predictions/pair", content=image).json()

    assert service.post(f"/predictions/pair/{version}", content=image).json() == expected


@pytest.mark.parametrize("field", ["data", "body", "file", "image"])
@pytest.mark.parametrize("file_name", ["a.png", None])
def test_form_has_the_image_in_any_of_its_fields(
    service: TestClient, image: bytes, field: str, file_name: str | None
) -> None:
    expected = service.post("/predictions/pair", content=image).json()
    name = f'; filename="{file_name}"' if file_name else ""
    head = f'--xyz\r\nContent-Disposition: form-data; name="{field}"{name}\r\n\r\n'.encode()
    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}

    response = service.post("/predictions/pair", content=head + image + b"\r\n--xyz--\r\n", headers=headers)

    assert response.json() == expected


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "image/png", "application/json", ""])
def test_raw_body_is_the_image_whatever_its_type(service: TestClient, image: bytes, content_type: str) -> None:
    expected = service.post("/predictions/pair", content=image).json()
    response = service.post("/predictions/pair", content=image, headers={"Content-Type": content_type})

    assert response.json() == expected


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_text_is_the_image_in_base64(service: TestClient, image: bytes, prefix: str) -> None:
    expected = service.post("/predictions/pair", content=image).json()
    lines = prefix + base64.encodebytes(image).decode()  # as the command base64 writes it

    assert service.post("/predictions/pair", content=lines, headers={"Content-Type": "text/plain"}).json() == expected
    assert service.post("/predictions/pair", json=lines).json() == expected


def test_instances_answer_in_kserves_envelope(service: TestClient, image: bytes, text: str) -> None:
    expected = service.post("/predictions/pair", content=image).json()

    response = service.post("/predictions/pair", json={"instances": [{"data": text}, {"body": {"b64": text}}, text]})

    assert response.json() == {"predictions": [expected] * 3}


TWO_FIELDS = b'--xyz\r\nContent-Disposition: form-data; name="data"\r\n\r\na\r\n' * 2 + b"--xyz--\r\n"
ERRORS: dict[str, tuple[str, str, dict[str, Any], int, str, str | None]] = {
    "unknown model": ("POST", "/predictions/nope", {"content": b"x"}, 404, "ModelNotFoundException",
                      "Model not found: nope"),
    "unknown version": ("POST", "/predictions/pair/9.9", {"content": b"x"}, 404, "ModelVersionNotFoundException",
                        "Model version: 9.9 does not exist for model: pair"),
    "no name": ("POST", "/predictions", {"content": b"x"}, 404, "ResourceNotFoundException", None),
    "method": ("DELETE", "/predictions/pair", {}, 405, "MethodNotAllowedException", None),
    "no image": ("POST", "/predictions/pair", {"content": b"hello"}, 415, "BadRequestException", None),
    "empty": ("POST", "/predictions/pair", {"content": b""}, 400, "BadRequestException", None),
    "two fields": ("POST", "/predictions/pair", {"content": TWO_FIELDS,
                   "headers": {"Content-Type": "multipart/form-data; boundary=xyz"}}, 422, "BadRequestException", None),
    "not base64": ("POST", "/predictions/pair", {"json": "ä"}, 400, "BadRequestException", None),
    "an address": ("POST", "/predictions/pair", {"json": "http://a/b.jpg"}, 400, "BadRequestException", None),
    "other JSON": ("POST", "/predictions/pair", {"json": {"a": 1}}, 400, "BadRequestException", None),
    "broken JSON": ("POST", "/predictions/pair", {"content": b'{"instances": ['}, 400, "BadRequestException", None),
    "no instances": ("POST", "/predictions/pair", {"json": {"instances": []}}, 400, "BadRequestException", None),
    "explanations": ("POST", "/explanations/pair", {"content": b"x"}, 501, "NotImplementedException", None),
    "explanations of nobody": ("POST", "/explanations/nope", {"content": b"x"}, 404, "ModelNotFoundException", None),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_error_has_its_shape_and_words(service: TestClient, case: str) -> None:
    method, path, request, status, kind, message = ERRORS[case]

    response = service.request(method, path, **request)

    check_error(response, status, kind, message)
    if status == 405:
        assert response.headers["Allow"] == "POST, PUT"


def test_truncated_image_is_the_clients_fault(service: TestClient, image: bytes) -> None:
    check_error(service.post("/predictions/pair", content=image[:-40]), 400, "BadRequestException")


def test_bomb_is_refused_before_it_is_decoded(service: TestClient) -> None:
    bomb = png([bytes(60)], width=20_000, height=20_000, bit_depth=8, colour_type=2)
    check_error(service.post("/predictions/pair", content=bomb), 413, "BadRequestException")


def test_limits_have_its_shape(start: StartApp, image: bytes) -> None:
    client = start(max_body_bytes=2_000, max_images_per_request=2, max_pixels=100)

    check_error(client.post("/predictions/pair", content=bytes(2_001)), 413, "BadRequestException")
    small = image[:1_000] if len(image) > 1_000 else image
    instances = [base64.b64encode(small[:30]).decode()] * 3
    check_error(client.post("/predictions/pair", json={"instances": instances}), 422, "BadRequestException")


def test_client_may_say_how_long_it_waits(service: TestClient, image: bytes) -> None:
    wait = {"X-Request-Timeout-Ms": "60000"}
    assert service.post("/predictions/pair", content=image, headers=wait).status_code == 200
    for text, status, kind in [("0", 422, "BadRequestException"), ("x", 422, "BadRequestException")]:
        headers = {"X-Request-Timeout-Ms": text}
        check_error(service.post("/predictions/pair", content=image, headers=headers), status, kind)


def test_key_that_is_missing_has_its_shape(start: StartApp, image: bytes) -> None:
    client = start(api_keys=API_KEYS)

    response = client.post("/predictions/pair", content=image)
    check_error(response, 401, "InvalidKeyException")
    assert response.headers["WWW-Authenticate"]
    headers = {"Authorization": f"Bearer {KEY}"}
    assert client.post("/predictions/pair", content=image, headers=headers).status_code == 200
    assert client.get("/ping").status_code == 200


@pytest.mark.in_process
def test_unavailable_has_its_shape(start: StartApp, image: bytes) -> None:
    client = start(max_pending_images=1)
    inside = client.app.state.service  # type: ignore[attr-defined]

    with inside.admission.admit():
        check_error(client.post("/predictions/pair", content=image), 503, "ServiceUnavailableException")
    headers = {"Content-Type": "image/png"}
    inside.settings.__dict__["request_timeout_s"] = 1e-9
    check_error(client.post("/predictions/pair", content=image, headers=headers), 504, "RequestTimeoutException")
    inside.phase = Phase.CLOSING
    check_error(client.post("/predictions/pair", content=image), 503, "ServiceUnavailableException")
    inside.phase = Phase.SERVING
    inside.check_admissible = lambda **_: 1 / 0
    check_error(client.post("/predictions/pair", content=image), 500, "InternalServerException")


@pytest.mark.in_process
def test_of_equal_labels_the_more_probable_is_kept() -> None:
    from types import SimpleNamespace

    import numpy as np

    from app.protocols.classifying import by_label

    classification = SimpleNamespace(probabilities=np.array([0.1, 0.6, 0.3]), ranking=np.array([1, 2, 0]))
    model = SimpleNamespace(artifact=SimpleNamespace(class_names=("cat", "cat", "dog")))

    assert by_label(classification, model) == {"cat": 0.6, "dog": 0.3}  # type: ignore[arg-type]
