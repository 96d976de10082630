"""Compressed bodies are decoded within the limits, and other encodings are named."""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.support.colours import applications, colour_image

IMAGE = colour_image("blue")
FORM = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + IMAGE + b"\r\n--xyz--\r\n"
FORM_TYPE = "multipart/form-data; boundary=xyz"


def raw_deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(content) + compressor.flush()


@pytest.fixture(scope="module")
def client_of_small_bodies(colours_store: Path) -> Iterator[TestClient]:
    with applications(colours_store) as start:
        yield start(max_body_bytes=100_000)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(IMAGE)),
        ("GZip", gzip.compress(IMAGE)),
        ("x-gzip", gzip.compress(IMAGE)),
        ("identity, gzip", gzip.compress(IMAGE)),
        ("gzip", gzip.compress(IMAGE[:50]) + gzip.compress(b"") + gzip.compress(IMAGE[50:])),
        ("deflate", zlib.compress(IMAGE)),
        ("deflate", raw_deflate(IMAGE)),
        ("identity", IMAGE),
        ("", IMAGE),
    ],
)
@pytest.mark.parametrize("size", [1, 1_000_000])
def test_compressed_image_is_classified(client: TestClient, encoding: str, body: bytes, size: int) -> None:
    chunks = (body[start : start + size] for start in range(0, len(body), size))
    response = client.post("/predict", content=chunks, headers={"Content-Encoding": encoding})

    assert response.json()["predictions"][0]["class_name"] == "blue"


def test_compressed_form_is_read(client: TestClient) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": FORM_TYPE}
    response = client.post("/predict/batch", content=gzip.compress(FORM), headers=headers)

    assert response.json()["results"][0]["predictions"][0]["class_name"] == "blue"


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "deflate, gzip", "aws-chunked"])
def test_other_encoding_is_named(client: TestClient, encoding: str) -> None:
    response = client.post("/predict", content=b"x", headers={"Content-Encoding": encoding})

    assert (response.status_code, response.json()["code"]) == (415, "unsupported_encoding")
    assert response.headers["Accept-Encoding"] == "gzip, deflate"
    assert "Content-Encoding" in response.json()["detail"]
    assert encoding in response.json()["detail"]


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", IMAGE),
        ("deflate", IMAGE),
        ("gzip", gzip.compress(IMAGE)[:-9]),
        ("gzip", gzip.compress(IMAGE)[:-1] + b"x"),
        ("gzip", gzip.compress(IMAGE) + b"behind it"),
        ("gzip", gzip.compress(b"") * 1_000),
        ("deflate", zlib.compress(IMAGE) * 2),
    ],
)
def test_damaged_encoding_is_told(client: TestClient, encoding: str, body: bytes) -> None:
    response = client.post("/predict", content=body, headers={"Content-Encoding": encoding})

    assert (response.status_code, response.json()["code"]) == (400, "corrupt_image")
    assert encoding in response.json()["detail"]


def test_nothing_and_compressed_nothing_are_no_image(client: TestClient) -> None:
    for body in (b"", gzip.compress(b"")):
        response = client.post("/predict", content=body, headers={"Content-Encoding": "gzip"})
        assert response.json()["code"] == "empty_body"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_body_is_bounded_while_it_is_inflated(client_of_small_bodies: TestClient, encoding: str) -> None:
    compress = gzip.compress if encoding == "gzip" else zlib.compress
    bomb = compress(bytes(60_000_000))
    assert len(bomb) < 100_000
    started_at = time.process_time()
    response = client_of_small_bodies.post("/predict", content=bomb, headers={"Content-Encoding": encoding})

    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert time.process_time() - started_at < 0.2
