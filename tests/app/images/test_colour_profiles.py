"""Embedded ICC profiles and CIELAB become sRGB as colour science in NumPy says (`tests.support.icc`)."""

from __future__ import annotations

import itertools
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from app.images.decode import decode
from tests.support.decoded_pixels import assert_pixels, decoded, luma
from tests.support.icc import (
    D50,
    SRGB_TO_XYZ,
    WIDE_GAMUT_TO_XYZ,
    cmyk_profile,
    grey_profile,
    rgb_profile,
    srgb_from_lab,
    srgb_from_xyz,
)
from tests.support.images import Pixels, encode, png, with_jpeg_segment

EVERY_FORMAT_WITH_PROFILES = [
    pytest.param("PNG", {}, id="PNG"),
    pytest.param("TIFF", {}, id="TIFF"),
    pytest.param("WEBP", {"lossless": True}, id="WEBP"),
    pytest.param("JPEG", {"quality": 100, "subsampling": 0}, id="JPEG"),
    pytest.param("AVIF", {"quality": 100, "subsampling": "4:4:4"}, id="AVIF"),
]


def _wide_gamut_as_srgb(pixels: Pixels) -> Pixels:
    return srgb_from_xyz((pixels / 255) ** 1.8 @ WIDE_GAMUT_TO_XYZ.T)


def _srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(("image_format", "options"), EVERY_FORMAT_WITH_PROFILES)
def test_a_wide_gamut_profile_is_converted_to_srgb(
    small_cat: Pixels, image_format: str, options: dict[str, Any]
) -> None:
    encoded = encode(small_cat, image_format, icc_profile=rgb_profile(), **options)
    stored, _ = decoded(encode(small_cat, image_format, **options))  # what the codec itself makes of the pixels
    pixels, adjustments = decoded(encoded)
    expected = _wide_gamut_as_srgb(stored)
    assert np.abs(expected.astype(int) - stored).mean() > 10  # the conversion is one to be seen
    assert_pixels(pixels, expected, within=2)
    assert adjustments == ("icc_to_srgb",)


@pytest.mark.parametrize(("image_format", "options"), EVERY_FORMAT_WITH_PROFILES)
def test_an_srgb_profile_leaves_pixels_alone(small_cat: Pixels, image_format: str, options: dict[str, Any]) -> None:
    pixels, adjustments = decoded(encode(small_cat, image_format, icc_profile=_srgb_profile(), **options))
    assert_pixels(pixels, decoded(encode(small_cat, image_format, **options))[0])
    assert adjustments == ()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("damage", ["random", "cut", "empty-directory"])
def test_a_damaged_profile_is_ignored_and_told(small_cat: Pixels, image_format: str, damage: str) -> None:
    profile = {
        "random": np.random.default_rng(0).bytes(500),
        "cut": rgb_profile()[:200],
        "empty-directory": rgb_profile()[:128] + b"\0\0\0\0",
    }[damage]
    options = {"lossless": True} if image_format == "WEBP" else {}
    pixels, adjustments = decoded(encode(small_cat, image_format, icc_profile=profile, **options))
    assert_pixels(pixels, decoded(encode(small_cat, image_format, **options))[0])
    assert adjustments == ("icc_ignored",)


def test_a_profile_larger_than_any_real_one_is_ignored_and_told(small_cat: Pixels) -> None:
    profile = rgb_profile() + bytes(5 * 1024 * 1024)
    pixels, adjustments = decoded(encode(small_cat, "TIFF", icc_profile=profile))
    assert_pixels(pixels, small_cat)
    assert adjustments == ("icc_ignored",)


def test_a_png_whose_profile_cannot_be_inflated_says_so(small_cat: Pixels) -> None:
    rows = [row.tobytes() for row in small_cat]
    damaged = [(b"iCCP", b"Wide\0\0" + zlib.compress(rgb_profile())[:-20] + bytes(20))]
    pixels, adjustments = decoded(png(rows, width=64, bit_depth=8, colour_type=2, before_pixels=damaged))
    assert_pixels(pixels, small_cat)
    assert adjustments == ("icc_ignored",)


def test_a_jpeg_whose_profile_lacks_a_part_says_so(small_cat: Pixels) -> None:
    encoded = encode(small_cat, "JPEG")
    one_of_two = b"ICC_PROFILE\0" + bytes([1, 2]) + rgb_profile()
    pixels, adjustments = decoded(with_jpeg_segment(encoded, 0xE2, one_of_two))
    assert_pixels(pixels, decoded(encoded)[0])
    assert adjustments == ("icc_ignored",)


def test_a_profile_of_several_parts_is_put_together(small_cat: Pixels) -> None:
    profile = rgb_profile(description="Wide" + " " * 70_000)  # a JPEG segment holds 65,519 bytes of it
    pixels, adjustments = decoded(encode(small_cat, "JPEG", icc_profile=profile, quality=100, subsampling=0))
    assert_pixels(
        pixels, _wide_gamut_as_srgb(decoded(encode(small_cat, "JPEG", quality=100, subsampling=0))[0]), within=2
    )
    assert adjustments == ("icc_to_srgb",)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_a_grey_profile_is_converted(small_cat: Pixels, image_format: str) -> None:
    grey = luma(small_cat)
    pixels, adjustments = decoded(encode(grey, image_format, icc_profile=grey_profile(gamma=1.5)))
    expected = srgb_from_xyz(((grey / 255) ** 1.5)[..., None] * D50)
    assert np.abs(expected - grey[..., None].astype(int)).mean() > 10  # the conversion is one to be seen
    assert_pixels(pixels, expected, within=2)
    assert adjustments == ("grey_to_rgb", "icc_to_srgb")


def test_a_grey_image_with_an_rgb_profile_is_converted(small_cat: Pixels) -> None:
    grey = luma(small_cat)
    pixels, adjustments = decoded(encode(grey, "PNG", icc_profile=rgb_profile()))
    assert_pixels(pixels, _wide_gamut_as_srgb(np.repeat(grey[..., None], 3, axis=-1)), within=2)
    assert adjustments == ("grey_to_rgb", "icc_to_srgb")


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
def test_a_press_profile_is_converted(image_format: str) -> None:
    corners = list(itertools.product([0, 1], repeat=4))
    # Inks unlike any real ones, so that no built-in conversion can pass for the profile's; paper is white and all inks
    # together are black, so that the perceptual intent has nothing to stretch.
    lab = [(100 - 25 * c - 20 * m - 15 * y - 40 * k, 20 * c - 15 * y, 15 * y - 20 * m) for c, m, y, k in corners]
    lab[-1] = (0, 0, 0)
    cmyk = np.repeat(np.repeat(np.array(corners, np.uint8).reshape(4, 4, 4) * 255, 16, axis=0), 16, axis=1)
    options = {"quality": 100, "subsampling": 0} if image_format == "JPEG" else {}
    encoded = encode(Image.fromarray(cmyk, "CMYK"), image_format, icc_profile=cmyk_profile(lab), **options)
    pixels, adjustments = decoded(encoded)
    expected = srgb_from_lab(np.array(lab, dtype=float)).reshape(4, 4, 3)
    assert_pixels(pixels, np.repeat(np.repeat(expected, 16, axis=0), 16, axis=1), within=3)
    assert adjustments == ("cmyk_to_rgb", "icc_to_srgb")


def test_a_palette_with_a_profile_is_converted(small_cat: Pixels) -> None:
    image = Image.fromarray(small_cat).quantize(32)
    pixels, adjustments = decoded(encode(image, "PNG", icc_profile=rgb_profile()))
    assert_pixels(pixels, _wide_gamut_as_srgb(np.asarray(image.convert("RGB"))), within=2)
    assert adjustments == ("palette_to_rgb", "icc_to_srgb")


def test_ycbcr_with_a_profile_is_converted(small_cat: Pixels) -> None:
    encoded = encode(Image.fromarray(small_cat).convert("YCbCr"), "TIFF", icc_profile=rgb_profile())
    pixels, adjustments = decoded(encoded)
    assert_pixels(pixels, _wide_gamut_as_srgb(small_cat), within=14)  # 8-bit YCbCr rounds, dark tones steepen it
    assert adjustments == ("colour_space_to_rgb", "icc_to_srgb")


def test_the_profile_is_applied_to_the_colour_beneath_the_alpha(small_cat: Pixels) -> None:
    half = np.full((48, 64), 128, np.uint8)
    pixels, adjustments = decoded(encode(np.dstack([small_cat, half]), "PNG", icc_profile=rgb_profile()))
    opacity = 128 / 255
    assert_pixels(pixels, np.round(_wide_gamut_as_srgb(small_cat) * opacity + 255 * (1 - opacity)), within=2)
    assert adjustments == ("icc_to_srgb", "alpha_on_white")


def test_a_profile_of_another_colour_space_is_ignored_and_told(small_cat: Pixels) -> None:
    pixels, adjustments = decoded(encode(small_cat, "PNG", icc_profile=grey_profile(gamma=1.0)))
    assert_pixels(pixels, small_cat)
    assert adjustments == ("icc_ignored",)


def _lab_tiff(**options: Any) -> tuple[bytes, Pixels]:
    """Returns a CIELAB TIFF, and what it is in sRGB."""
    lab = np.zeros((40, 60, 3))
    lab[..., 0] = np.linspace(35, 80, 60).round()
    lab[..., 1] = np.linspace(-20, 20, 40).round()[:, None]
    lab[..., 2] = 10
    lightness = np.round(lab[..., 0] * 2.55)
    stored = np.dstack([lightness, lab[..., 1:] % 256]).astype(np.uint8)  # TIFF's a and b are signed (TIFF 6.0, p. 110)
    image = Image.frombytes("LAB", (60, 40), stored.tobytes(), "raw", "LAB")
    lab[..., 0] = lightness / 2.55
    return encode(image, "TIFF", **options), srgb_from_lab(lab)


def test_cielab_tiff() -> None:
    encoded, expected = _lab_tiff()
    pixels, adjustments = decoded(encoded)
    assert_pixels(pixels, expected, within=3)
    assert adjustments == ("colour_space_to_rgb", "icc_to_srgb")


@pytest.mark.parametrize("profile", [rgb_profile(), b"damaged"], ids=["of-rgb", "damaged"])
def test_cielab_needs_no_profile_and_heeds_none(profile: bytes) -> None:
    encoded, expected = _lab_tiff(icc_profile=profile)
    pixels, adjustments = decoded(encoded)
    assert_pixels(pixels, expected, within=3)
    assert adjustments == ("colour_space_to_rgb", "icc_ignored")


def test_conversions_are_the_same_on_every_thread(small_cat: Pixels) -> None:
    encoded = encode(small_cat, "PNG", icc_profile=rgb_profile())
    with ThreadPoolExecutor(8) as threads:
        all_pixels = list(threads.map(lambda _: decode(encoded).pixels.tobytes(), range(64)))
    assert len(set(all_pixels)) == 1


@pytest.mark.parametrize(
    "name", ["GIMP built-in Linear sRGB", "sRGB-elle-V2-g10.icc", "sRGB IEC61966-2.1", "linear sRGB", "Wide"]
)
@pytest.mark.parametrize(("image_format", "options"), EVERY_FORMAT_WITH_PROFILES)
def test_a_profile_is_judged_by_its_numbers_not_by_its_name(
    small_cat: Pixels, image_format: str, options: dict[str, Any], name: str
) -> None:
    stored, _ = decoded(encode(small_cat, image_format, **options))
    linear = rgb_profile(SRGB_TO_XYZ, gamma=1.0, description=name)
    pixels, adjustments = decoded(encode(small_cat, image_format, icc_profile=linear, **options))
    expected = srgb_from_xyz((stored / 255) @ SRGB_TO_XYZ.T)
    assert_pixels(pixels, expected, within=2)
    assert np.abs(expected.astype(int) - stored).mean() > 40
    assert adjustments == ("icc_to_srgb",)


def test_the_numbers_of_srgb_leave_pixels_alone_under_any_name(small_cat: Pixels) -> None:
    profile = bytearray(_srgb_profile())
    at = profile.index("sRGB".encode("utf-16-be"))
    profile[at : at + 8] = "Wide".encode("utf-16-be")
    pixels, adjustments = decoded(encode(small_cat, "PNG", icc_profile=bytes(profile)))
    assert_pixels(pixels, small_cat)
    assert adjustments == ()
