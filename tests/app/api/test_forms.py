"""Forms as browsers and HTTP libraries send them: preambles, inputs without a file, JSON beside the image."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from tests.support.colours import colour_image

FORM = {"Content-Type": "multipart/form-data; boundary=xyz"}
IMAGE = ('name="photo"; filename="a.png"', "image/png", colour_image("blue"))
EMPTY = ('name="file"; filename=""', "application/octet-stream", b"")
JSON = ('name="meta"; filename="blob"', "application/json", b'{"a": 1}')


def form(*parts: tuple[str, str, bytes], preamble: bytes = b"") -> bytes:
    body = preamble
    for disposition, media_type, content in parts:
        body += f"--xyz\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: {media_type}\r\n\r\n".encode()
        body += content + b"\r\n"
    return body + b"--xyz--\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((IMAGE, EMPTY), id="an input without a file behind it"),
        pytest.param((EMPTY, IMAGE), id="an input without a file before it"),
        pytest.param((EMPTY, IMAGE, EMPTY), id="several inputs without a file"),
        pytest.param((JSON, IMAGE), id="JSON before it"),
        pytest.param((IMAGE, JSON), id="JSON behind it"),
        pytest.param((IMAGE, (JSON[0], "application/ld+json; charset=utf-8", b"{}"), EMPTY), id="linked data, no file"),
        pytest.param((IMAGE, ('name="c"', "text/plain", b"hello")), id="a text field"),
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_only_image_of_a_form_is_found(client: TestClient, path: str, parts: tuple[tuple[str, str, bytes]]) -> None:
    response = client.post(path, content=form(*parts), headers=FORM)

    answer = response.json()
    results = answer.get("results", [answer])
    assert [result["predictions"][0]["class_name"] for result in results] == ["blue"]


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_form_without_a_chosen_file_is_told(client: TestClient, path: str) -> None:
    response = client.post(path, content=form(EMPTY), headers=FORM)

    assert (response.status_code, response.json()["code"]) == (422, "missing_file")


def test_image_that_is_declared_as_json_is_classified_if_it_is_alone(client: TestClient) -> None:
    response = client.post("/predict", content=form((IMAGE[0], "application/json", IMAGE[2])), headers=FORM)

    assert response.json()["predictions"][0]["class_name"] == "blue"


@pytest.mark.parametrize(
    "preamble",
    [
        b"\r\n",
        b"This is a multipart message\r\n",
        b"two\r\nlines\r\n\r\n",
        b"--xy\r\n",
        b"a --xyz in a line\r\n",
        b"x" * 100_000 + b"\r\n",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_what_is_before_the_first_boundary_means_nothing(client: TestClient, preamble: bytes, size: int) -> None:
    body = form(IMAGE, preamble=preamble[-2_000:] if size < 10 else preamble)

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    response = client.post("/predict", content=chunks(), headers=FORM)
    assert response.json()["predictions"][0]["class_name"] == "blue"


@pytest.mark.parametrize(
    "media_type",
    ["image/jpeg", "text/plain", "application/octet-stream", "multipart/related; boundary=xyz", "multipart/mixed", ""],
)
def test_form_of_a_wrong_type_is_told(client: TestClient, media_type: str) -> None:
    response = client.post("/predict", content=form(IMAGE), headers={"Content-Type": media_type})

    assert response.status_code == 415
    assert "a whole form (multipart/form-data)" in response.json()["detail"]
    assert "content type" in response.json()["detail"]


def test_boundary_that_is_not_in_the_body_is_told(client: TestClient) -> None:
    response = client.post("/predict", content=form(IMAGE).replace(b"--xyz", b"--other"), headers=FORM)

    assert (response.status_code, response.json()["code"]) == (422, "missing_file")
    assert "boundary" in response.json()["detail"]
