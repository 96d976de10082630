"""Colour told by numbers (gAMA, cHRM, cICP, nclx) becomes the sRGB that Chromium shows.

The values were read from Chromium 150 (`chromium --headless=new --disable-gpu --force-color-profile=srgb --dump-dom`)
with a page that draws the image of `COLOURS` below on a canvas and prints `getImageData`.
"""

from __future__ import annotations

import struct

import numpy as np
import pytest

from app.images.decode import decode
from app.images.formats.heif_boxes import read_items
from tests.support.decoded_pixels import assert_pixels, decoded
from tests.support.icc import rgb_profile, srgb_from_xyz
from tests.support.images import Pixels, encode, png

GREYS = [[grey] * 3 for grey in (0, 8, 32, 64, 128, 192, 224, 255)]
COLOURS = np.array([[*GREYS, [200, 60, 40], [40, 180, 60], [50, 70, 210], [250, 240, 30]]], dtype=np.uint8)
AS_THEY_ARE = COLOURS[0].tolist()
P3 = [0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06]
SRGB = [0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06]
TOLD = ("coded_colour_to_srgb",)

LINEAR = [[v] * 3 for v in (0, 50, 99, 137, 188, 225, 241, 255)] + [
    [229, 133, 110], [110, 219, 133], [122, 143, 234], [253, 248, 96]]  # fmt: skip
IN_P3 = [[v] * 3 for v in (0, 8, 32, 64, 128, 192, 224, 255)] + [
    [217, 42, 23], [0, 183, 30], [44, 71, 218], [252, 240, 0]]  # fmt: skip
LINEAR_P3 = [[v] * 3 for v in (0, 50, 99, 137, 188, 225, 241, 255)] + [
    [244, 127, 104], [51, 222, 124], [117, 144, 241], [254, 248, 53]]  # fmt: skip
GAMMA_2 = [[v] * 3 for v in (0, 3, 34, 71, 137, 198, 227, 255)] + [
    [206, 67, 43], [43, 187, 67], [55, 78, 215], [251, 242, 31]]  # fmt: skip
GAMMA_22_P3 = [[v] * 3 for v in (0, 2, 26, 62, 129, 193, 225, 255)] + [
    [219, 37, 13], [0, 185, 23], [40, 69, 219], [252, 240, 0]]  # fmt: skip
IN_2020 = [[v] * 3 for v in (0, 1, 20, 54, 121, 189, 222, 255)] + [
    [244, 0, 0], [0, 186, 0], [0, 59, 217], [255, 239, 0]]  # fmt: skip
IN_601 = [[v] * 3 for v in (0, 1, 20, 54, 121, 189, 222, 255)] + [
    [192, 56, 27], [51, 173, 48], [46, 66, 208], [248, 238, 2]]  # fmt: skip
PQ_GREYS = [0, 0, 5, 30, 132, 255, 255, 255]
HLG_GREYS = [0, 1, 14, 43, 99, 189, 228, 255]


def _gama(gamma: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(gamma * 100_000))


def _chrm(chromaticities: list[float]) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(number * 100_000) for number in chromaticities))


def _cicp(*numbers: int) -> tuple[bytes, bytes]:
    return b"cICP", bytes(numbers)


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    return png([COLOURS.tobytes()], width=12, bit_depth=8, colour_type=2, before_pixels=chunks)


def _avif(primaries: int, transfer: int) -> bytes:
    """Returns an AVIF of large squares whose nclx says these numbers."""
    encoded = encode(COLOURS.repeat(16, axis=0).repeat(16, axis=1), "AVIF", quality=100, subsampling="4:4:4")
    at = encoded.index(b"nclx") + 4
    return encoded[:at] + struct.pack(">HH", primaries, transfer) + encoded[at + 4 :]


@pytest.mark.parametrize(
    ("chunks", "expected", "told"),
    [
        pytest.param([_gama(1)], LINEAR, TOLD, id="gAMA-linear"),
        pytest.param([_gama(0.5)], GAMMA_2, TOLD, id="gAMA-of-2"),
        pytest.param([_gama(0.45455)], AS_THEY_ARE, (), id="gAMA-of-sRGB"),
        pytest.param([_gama(0.45455), _chrm(SRGB)], AS_THEY_ARE, (), id="gAMA-and-cHRM-of-sRGB"),
        pytest.param([_gama(1), _chrm(P3)], LINEAR_P3, TOLD, id="gAMA-and-cHRM"),
        pytest.param([_gama(0.45455), _chrm(P3)], GAMMA_22_P3, TOLD, id="gAMA-of-2.2-and-cHRM"),
        pytest.param([_gama(1), (b"sRGB", b"\0")], AS_THEY_ARE, (), id="sRGB-decides-over-gAMA"),
        pytest.param([_cicp(12, 13, 0, 1), _gama(1)], IN_P3, TOLD, id="cICP-P3-decides-over-gAMA"),
        pytest.param([_cicp(1, 8, 0, 1)], LINEAR, TOLD, id="cICP-linear"),
        pytest.param([_cicp(9, 1, 0, 1)], IN_2020, TOLD, id="cICP-BT.2020"),
        pytest.param([_cicp(9, 14, 0, 1)], IN_2020, TOLD, id="cICP-BT.2020-10-bit"),
        pytest.param([_cicp(6, 6, 0, 1)], IN_601, TOLD, id="cICP-BT.601"),
        pytest.param([_cicp(1, 1, 0, 1)], AS_THEY_ARE, (), id="cICP-BT.709"),
        pytest.param([_cicp(1, 13, 0, 1)], AS_THEY_ARE, (), id="cICP-sRGB"),
        pytest.param([_cicp(2, 4, 0, 1)], AS_THEY_ARE, (), id="cICP-unspecified"),
        pytest.param([_chrm(P3)], AS_THEY_ARE, ("coded_colour_ignored",), id="cHRM-alone"),
        pytest.param([_gama(0)], AS_THEY_ARE, ("coded_colour_ignored",), id="gAMA-of-0"),
        pytest.param([_gama(1), _chrm([0] * 8)], AS_THEY_ARE, ("coded_colour_ignored",), id="cHRM-of-zeros"),
        pytest.param([_gama(1), _chrm([0.3] * 8)], AS_THEY_ARE, ("coded_colour_ignored",), id="cHRM-of-one-point"),
        pytest.param([_cicp(99, 13, 0, 1)], AS_THEY_ARE, ("coded_colour_ignored",), id="cICP-unknown-primaries"),
        pytest.param([_cicp(1, 99, 0, 1)], AS_THEY_ARE, ("coded_colour_ignored",), id="cICP-unknown-transfer"),
        pytest.param([_cicp(1, 13, 1, 1)], AS_THEY_ARE, ("coded_colour_ignored",), id="cICP-with-a-matrix"),
        pytest.param([(b"gAMA", b"")], AS_THEY_ARE, ("coded_colour_ignored",), id="gAMA-empty"),
    ],
)
def test_a_png_is_shown_as_chromium_shows_it(
    chunks: list[tuple[bytes, bytes]], expected: list[list[int]], told: tuple[str, ...]
) -> None:
    pixels, adjustments = decoded(_png(*chunks))
    assert_pixels(pixels, [expected], within=1)
    assert adjustments == told


@pytest.mark.parametrize(("transfer", "greys"), [(16, PQ_GREYS), (18, HLG_GREYS)], ids=["PQ", "HLG"])
def test_hdr_is_brought_into_the_range_of_a_screen_and_told(transfer: int, greys: list[int]) -> None:
    pixels, adjustments = decoded(_png(_cicp(9, transfer, 0, 1)))
    assert_pixels(pixels[:, :8], [[[grey] * 3 for grey in greys]], within=2)
    assert adjustments == (*TOLD, "hdr_to_sdr")
    image = decode(_avif(9, transfer))
    assert_pixels(np.asarray(image.pixels)[8:9, 8:128:16], [[[grey] * 3 for grey in greys]], within=2)
    assert image.adjustments == (*TOLD, "hdr_to_sdr")


@pytest.mark.parametrize(
    ("numbers", "expected", "told"),
    [
        pytest.param((12, 13), IN_P3, TOLD, id="P3"),
        pytest.param((1, 8), LINEAR, TOLD, id="linear"),
        pytest.param((9, 14), IN_2020, TOLD, id="BT.2020"),
        pytest.param((1, 1), AS_THEY_ARE, (), id="BT.709"),
        pytest.param((1, 13), AS_THEY_ARE, (), id="sRGB"),
        pytest.param((2, 2), AS_THEY_ARE, (), id="unspecified"),
    ],
)
def test_an_avif_is_shown_as_chromium_shows_it(
    numbers: tuple[int, int], expected: list[list[int]], told: tuple[str, ...]
) -> None:
    encoded = _avif(*numbers)
    assert _code_points(encoded) == numbers
    image = decode(encoded)
    assert_pixels(np.asarray(image.pixels)[8:9, 8::16], [expected], within=3)
    assert image.adjustments == told


def test_a_profile_decides_over_gamma(small_cat: Pixels) -> None:
    encoded = encode(small_cat, "PNG", icc_profile=rgb_profile())
    with_gamma = encoded[:33] + _png(_gama(1))[33:49] + encoded[33:]
    assert with_gamma.count(b"gAMA") == 1
    pixels, adjustments = decoded(with_gamma)
    assert_pixels(pixels, decoded(encoded)[0])
    assert adjustments == ("icc_to_srgb",)


def test_linear_light_of_16_bits_and_of_grey_is_converted() -> None:
    ramp = np.arange(256, dtype=np.uint16)
    deep = png([(ramp * 257).astype(">u2").tobytes()], width=256, bit_depth=16, colour_type=0, before_pixels=[_gama(1)])
    flat = png([ramp.astype(np.uint8).tobytes()], width=256, bit_depth=8, colour_type=0, before_pixels=[_gama(1)])
    expected = srgb_from_xyz((ramp / 255)[:, None] * np.array([0.9642, 1.0, 0.8249]))
    for encoded in (deep, flat):
        pixels, adjustments = decoded(encoded)
        assert_pixels(pixels, expected[None], within=1)
        assert "coded_colour_to_srgb" in adjustments


def _code_points(encoded: bytes) -> tuple[int, int] | None:
    items = read_items(encoded)
    return items.code_points(items.primary)


@pytest.mark.parametrize("length", range(0, 400, 7))
def test_an_avif_cut_anywhere_tells_numbers_or_none(length: int) -> None:
    assert _code_points(_avif(9, 16)[:length]) in {None, (9, 16), (9, 0), (0, 0)}
