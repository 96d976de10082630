"""Clients are told what was mended in an image, and why another one is refused."""

from __future__ import annotations

import struct
from typing import get_args

import pytest
from starlette.testclient import TestClient

from app.images.colour import Adjustment
from tests.support.colours import colour_image
from tests.support.icc import SRGB_TO_XYZ, rgb_profile
from tests.support.images import Pixels, encode, png_chunk

HEADER_END = 33


@pytest.fixture
def jpeg(cat: Pixels) -> bytes:
    return encode(cat, "JPEG")


def _with_chunk(kind: bytes, content: bytes, change: int = 0) -> bytes:
    encoded = colour_image("red")
    chunk = bytearray(png_chunk(kind, content))
    chunk[-1] ^= change
    return encoded[:HEADER_END] + bytes(chunk) + encoded[HEADER_END:]


@pytest.mark.parametrize(
    ("encoded", "adjustment"),
    [
        pytest.param(_with_chunk(b"tEXt", b"a\0b", change=1), "metadata_ignored", id="wrong-checksum"),
        pytest.param(_with_chunk(b"iCCP", b"icc\0\0garbage"), "icc_ignored", id="damaged-profile"),
        pytest.param(_with_chunk(b"cHRM", struct.pack(">8I", *[30_000] * 8)), "coded_colour_ignored", id="odd-cHRM"),
        pytest.param(colour_image("red")[:-12], "end_marker_added", id="PNG-without-end"),
        pytest.param(colour_image("red", image_format="JPEG")[:-2], "end_marker_added", id="JPEG-without-end"),
    ],
)
def test_what_has_every_pixel_is_answered_and_told(client: TestClient, encoded: bytes, adjustment: str) -> None:
    response = client.post("/predict", files={"file": ("a", encoded)})
    assert response.status_code == 200
    assert response.json()["predictions"][0]["class_name"] == "red"
    assert response.json()["image"]["adjustments"] == [adjustment]


def test_a_linear_profile_called_srgb_is_converted(client: TestClient, cat: Pixels) -> None:
    profile = rgb_profile(SRGB_TO_XYZ, gamma=1.0, description="GIMP built-in Linear sRGB")
    response = client.post("/predict", content=encode(cat, "PNG", icc_profile=profile))
    assert response.json()["image"]["adjustments"] == ["icc_to_srgb"]


@pytest.mark.parametrize("end", [b"", b"\xff\xd9"], ids=["cut", "cut-with-an-end-marker"])
def test_what_lacks_pixels_is_refused(client: TestClient, jpeg: bytes, end: bytes) -> None:
    response = client.post("/predict", content=jpeg[: len(jpeg) // 3] + bytes(len(jpeg) // 2) * bool(end) + end)
    assert (response.status_code, response.json()["code"]) == (400, "corrupt_image")


def test_kinds_that_are_not_served_are_named(client: TestClient) -> None:
    response = client.post("/predict", content=b"FUJIFILMCCD-RAW 0201" + bytes(1000))
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_format")
    assert "camera raw" in response.json()["detail"]


def test_every_adjustment_is_in_the_openapi_document(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    listed = [schema["properties"].get("adjustments") for schema in schemas.values() if "properties" in schema]
    assert [found["items"]["enum"] for found in listed if found] == [list(get_args(Adjustment))]
