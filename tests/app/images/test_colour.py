"""Every mode, depth and transparency becomes RGB as NumPy's arithmetic on the written samples says."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.errors import UnsupportedFormatError
from app.images.decode import decode
from tests.support.decoded_pixels import assert_pixels, decoded, luma
from tests.support.images import (
    Pixels,
    encode,
    grey_tiff,
    pack_bits,
    png,
    tiff,
    with_jpeg_segment,
    without_jpeg_segments,
)


def on_white(colour: Any, alpha: Any) -> Pixels:
    """Composites in real numbers; `alpha` in [0, 1]."""
    return np.asarray(np.round(np.asarray(colour) * alpha + 255 * (1 - np.asarray(alpha))), dtype=np.uint8)


@pytest.fixture
def grey(small_cat: Pixels) -> Pixels:
    """The cat in grey, `uint8 (48, 64)`."""
    return luma(small_cat)


@pytest.fixture
def alpha() -> Pixels:
    """From transparent to opaque, left to right, `uint8 (48, 64)`."""
    return np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (48, 1))


@pytest.fixture
def deep() -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Every 16-bit value once, `uint16 (256, 256)`."""
    return np.arange(65536, dtype=np.uint16).reshape(256, 256)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP"])
def test_grey_becomes_three_equal_channels(grey: Pixels, image_format: str) -> None:
    pixels, adjustments = decoded(encode(grey, image_format))
    assert_pixels(pixels, grey[..., None])
    assert adjustments == ("grey_to_rgb",)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_spans_black_to_white(grey: Pixels, bits: int) -> None:
    samples = grey >> (8 - bits)
    pixels, adjustments = decoded(png(pack_bits(samples, bits), width=64, bit_depth=bits, colour_type=0))
    assert_pixels(pixels, (samples.astype(int) * 255 // (2**bits - 1))[..., None])
    assert adjustments == ("grey_to_rgb",)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP"])
def test_one_bit_images_are_black_and_white(grey: Pixels, image_format: str) -> None:
    pixels, adjustments = decoded(encode(Image.fromarray(grey > 100), image_format))
    assert_pixels(pixels, np.where(grey > 100, 255, 0)[..., None])
    assert adjustments in {("grey_to_rgb",), ("palette_to_rgb",)}  # a 1-bit BMP is a palette of two


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_every_depth(small_cat: Pixels, bits: int) -> None:
    image = Image.fromarray(small_cat).quantize(2**bits)
    indices, colours = np.asarray(image), np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)
    rows = pack_bits(indices, bits)
    encoded = png(rows, width=64, bit_depth=bits, colour_type=3, before_pixels=[(b"PLTE", colours.tobytes())])
    pixels, adjustments = decoded(encoded)
    assert_pixels(pixels, colours[indices])
    assert adjustments == ("palette_to_rgb",)


@pytest.mark.parametrize("image_format", ["GIF", "BMP", "TIFF"])
def test_palettes_of_every_format(small_cat: Pixels, image_format: str) -> None:
    image = Image.fromarray(small_cat).quantize(64)
    pixels, adjustments = decoded(encode(image, image_format))
    assert_pixels(pixels, np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)[np.asarray(image)])
    assert adjustments == ("palette_to_rgb",)


def test_alpha_in_a_palette_is_composited_on_white(small_cat: Pixels) -> None:
    image = Image.fromarray(small_cat).quantize(4)
    indices, colours = np.asarray(image), np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)[:4]
    opacity = np.array([255, 0, 128, 255], dtype=np.uint8)
    chunks = [(b"PLTE", colours.tobytes()), (b"tRNS", opacity[:3].tobytes())]
    encoded = png(pack_bits(indices, 2), width=64, bit_depth=2, colour_type=3, before_pixels=chunks)
    pixels, adjustments = decoded(encoded)
    assert_pixels(pixels, on_white(colours, opacity[:, None] / 255)[indices], within=1)
    assert adjustments == ("palette_to_rgb", "alpha_on_white")


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_composited_on_white(small_cat: Pixels, alpha: Pixels, image_format: str) -> None:
    rgba = np.dstack([small_cat, alpha])
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    pixels, adjustments = decoded(encode(rgba, image_format, **options))
    assert_pixels(pixels, on_white(small_cat, alpha[..., None] / 255), within=1)
    assert adjustments == ("alpha_on_white",)


def test_alpha_of_avif_is_composited_on_white(small_cat: Pixels, alpha: Pixels) -> None:
    pixels, adjustments = decoded(encode(np.dstack([small_cat, alpha]), "AVIF", quality=100, subsampling="4:4:4"))
    assert_pixels(pixels, on_white(small_cat, alpha[..., None] / 255), within=8)  # AVIF's YCbCr is lossy
    assert adjustments == ("alpha_on_white",)


def _bmp_of_masks(rgba: Pixels, *, with_alpha: bool) -> bytes:
    """Returns a 32-bit BMP with a BITMAPV4HEADER, which says by masks where each channel is."""
    height, width, _ = rgba.shape
    masks = (0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000 if with_alpha else 0)
    rows = rgba[::-1, :, [2, 1, 0, 3]].tobytes()
    header = struct.pack("<IiiHHIIiiII4I", 108, width, height, 1, 32, 3, len(rows), 2835, 2835, 0, 0, *masks)
    header = header.ljust(108, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + 108 + len(rows), 0, 0, 14 + 108) + header + rows


def test_alpha_of_a_bitmap_is_composited_where_its_header_has_a_mask_for_it(small_cat: Pixels, alpha: Pixels) -> None:
    rgba = np.dstack([small_cat, alpha])
    pixels, adjustments = decoded(_bmp_of_masks(rgba, with_alpha=True))
    assert_pixels(pixels, on_white(small_cat, alpha[..., None] / 255), within=1)
    assert adjustments == ("alpha_on_white",)
    pixels, adjustments = decoded(_bmp_of_masks(rgba, with_alpha=False))
    assert_pixels(pixels, small_cat)
    assert adjustments == ()


def test_alpha_of_a_bitmap_that_would_hide_everything_is_ignored(small_cat: Pixels) -> None:
    # ffmpeg 5.1 (`ffmpeg -i hidden.bmp out.png`) gives the same pixels.
    hidden = np.dstack([small_cat, np.zeros((48, 64), np.uint8)])
    pixels, adjustments = decoded(_bmp_of_masks(hidden, with_alpha=True))
    assert_pixels(pixels, small_cat)
    assert adjustments == ("alpha_ignored",)
    hidden[0, 0, 3] = 1
    assert decoded(_bmp_of_masks(hidden, with_alpha=True))[1] == ("alpha_on_white",)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_alpha_beside_grey_is_composited_on_white(grey: Pixels, alpha: Pixels, image_format: str) -> None:
    image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    pixels, adjustments = decoded(encode(image, image_format))
    assert_pixels(pixels, on_white(grey, alpha / 255)[..., None], within=1)
    assert adjustments == ("grey_to_rgb", "alpha_on_white")


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP"])
def test_an_alpha_channel_that_hides_nothing_changes_nothing(small_cat: Pixels, image_format: str) -> None:
    options = {"lossless": True} if image_format == "WEBP" else {}
    opaque = np.dstack([small_cat, np.full((48, 64), 255, np.uint8)])
    pixels, adjustments = decoded(encode(opaque, image_format, **options))
    assert_pixels(pixels, small_cat)
    assert adjustments == ()


def test_premultiplied_alpha_is_composited_on_white(small_cat: Pixels, alpha: Pixels) -> None:
    premultiplied = np.round(small_cat * (alpha[..., None] / 255)).astype(np.uint8)
    samples = np.dstack([premultiplied, alpha]).tobytes()
    tags = {256: (4, [64]), 257: (4, [48]), 258: (3, [8] * 4), 259: (3, [1]), 262: (3, [2]), 273: (4, [0])}
    tags |= {277: (3, [4]), 278: (4, [48]), 279: (4, [len(samples)]), 338: (3, [1])}
    pixels, adjustments = decoded(tiff(samples, tags))
    assert_pixels(pixels, on_white(small_cat, alpha[..., None] / 255), within=2)
    assert adjustments == ("alpha_on_white",)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("key", ["black", "white"])
def test_a_transparent_grey_is_white(grey: Pixels, bits: int, key: str) -> None:
    samples = np.clip(grey, 40, 220) >> (8 - bits)
    samples[:10] = key_sample = 0 if key == "black" else 2**bits - 1
    transparency = [(b"tRNS", key_sample.to_bytes(2, "big"))]
    encoded = png(pack_bits(samples, bits), width=64, bit_depth=bits, colour_type=0, before_pixels=transparency)
    pixels, adjustments = decoded(encoded)
    expected = np.where(samples == key_sample, 255, samples.astype(int) * 255 // (2**bits - 1))
    assert_pixels(pixels, expected[..., None])
    assert adjustments == ("grey_to_rgb", "alpha_on_white")


def test_a_transparent_colour_is_white(small_cat: Pixels) -> None:
    pixels_with_key = small_cat.copy()
    pixels_with_key[:10] = (3, 200, 77)
    pixels_with_key[10] = (3, 200, 78)  # nearly the key: opaque
    pixels, adjustments = decoded(encode(pixels_with_key, "PNG", transparency=(3, 200, 77)))
    pixels_with_key[:10] = 255
    assert_pixels(pixels, pixels_with_key)
    assert adjustments == ("alpha_on_white",)


def test_a_transparent_colour_of_16_bits_is_white(small_cat: Pixels) -> None:
    samples = small_cat.astype(np.uint16) * 257
    samples[:10] = key = (0x0100, 0xFF00, 0x1234)  # scaling by 255 / 65535 and taking the high byte differ on these
    transparency = [(b"tRNS", np.array(key, dtype=">u2").tobytes())]
    rows = [row.astype(">u2").tobytes() for row in samples]
    pixels, adjustments = decoded(png(rows, width=64, bit_depth=16, colour_type=2, before_pixels=transparency))
    expected = small_cat.copy()
    expected[:10] = 255
    assert_pixels(pixels, expected)
    assert set(adjustments) == {"16_bit_to_8_bit", "alpha_on_white"}


def test_a_transparent_grey_of_16_bits_is_white(deep: Any) -> None:
    rows = [row.astype(">u2").tobytes() for row in deep]
    transparency = [(b"tRNS", (0x1234).to_bytes(2, "big"))]
    pixels, adjustments = decoded(png(rows, width=256, bit_depth=16, colour_type=0, before_pixels=transparency))
    expected = np.round(deep / 257)
    expected[0x12, 0x34] = 255
    assert_pixels(pixels, expected[..., None])
    assert set(adjustments) == {"grey_to_rgb", "16_bit_to_8_bit", "alpha_on_white"}


def _deep_grey(kind: str, samples: Any) -> bytes:
    if kind == "PNG":
        return encode(samples, "PNG")
    if kind == "TIFF-deflate":
        return encode(samples, "TIFF", compression="tiff_deflate")
    return grey_tiff(samples, byte_order="<" if kind.endswith("little") else ">")


@pytest.mark.parametrize("kind", ["PNG", "TIFF-little", "TIFF-big", "TIFF-deflate"])
def test_16_bit_grey_is_scaled_not_clipped(deep: Any, kind: str) -> None:
    pixels, adjustments = decoded(_deep_grey(kind, deep))
    assert_pixels(pixels, np.round(deep / 257)[..., None])
    assert adjustments == ("grey_to_rgb", "16_bit_to_8_bit")


def test_12_bit_grey_is_scaled_by_its_own_range() -> None:
    samples = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    pixels, adjustments = decoded(grey_tiff(samples, bits=12))
    assert_pixels(pixels, np.round(samples / 4095 * 255)[..., None])
    assert adjustments == ("grey_to_rgb", "16_bit_to_8_bit")


def test_white_is_zero_is_inverted_at_16_bits(deep: Any) -> None:
    pixels, _ = decoded(grey_tiff(deep, white_is_zero=True))
    assert_pixels(pixels, 255 - np.round(deep / 257)[..., None])


@pytest.mark.parametrize("bits", [1, 8])
def test_white_is_zero_is_inverted_at_few_bits(grey: Pixels, bits: int) -> None:
    samples = grey >> (8 - bits)
    strip = b"".join(pack_bits(samples, bits))
    tags = {256: (4, [64]), 257: (4, [48]), 258: (3, [bits]), 259: (3, [1]), 262: (3, [0]), 273: (4, [0])}
    tags |= {277: (3, [1]), 278: (4, [48]), 279: (4, [len(strip)])}
    pixels, _ = decoded(tiff(strip, tags))
    assert_pixels(pixels, 255 - (samples.astype(int) * 255 // (2**bits - 1))[..., None])


@pytest.mark.parametrize("channels", [2, 3, 4], ids=["grey-alpha", "rgb", "rgba"])
def test_16_bit_png_is_scaled(small_cat: Pixels, channels: int) -> None:
    samples = (small_cat[..., :1] if channels == 2 else small_cat).astype(np.uint16) * 257 + 100
    colour = np.asarray(np.round(samples / 257), dtype=np.uint8)
    colour_type = {2: 4, 3: 2, 4: 6}[channels]
    if channels != 3:
        half = np.full((48, 64, 1), 0x8000, dtype=np.uint16)
        samples, colour = np.dstack([samples, half]), on_white(colour, 0x8000 / 65535)
    rows = [row.astype(">u2").tobytes() for row in samples]
    pixels, adjustments = decoded(png(rows, width=64, bit_depth=16, colour_type=colour_type))
    assert_pixels(pixels, colour, within=1)
    assert "16_bit_to_8_bit" in adjustments


@pytest.mark.parametrize("byte_order", ["<", ">"], ids=["little", "big"])
def test_16_bit_rgb_tiff_is_scaled(small_cat: Pixels, byte_order: str) -> None:
    strip = (small_cat.astype(np.uint16) * 257 + 100).astype(byte_order + "u2").tobytes()
    tags = {256: (4, [64]), 257: (4, [48]), 258: (3, [16] * 3), 259: (3, [1]), 262: (3, [2]), 273: (4, [0])}
    tags |= {277: (3, [3]), 278: (4, [48]), 279: (4, [len(strip)])}
    pixels, adjustments = decoded(tiff(strip, tags, byte_order=byte_order))
    assert_pixels(pixels, small_cat, within=1)
    assert adjustments == ("16_bit_to_8_bit",)


def _inks(cat: Pixels) -> Pixels:
    """The cat in CMYK: `uint8 (48, 64, 4)`, 255 being full ink, with some black taken out of the colours."""
    cmy = 255 - cat.astype(int)
    black = cmy.min(axis=-1, keepdims=True) // 2
    return np.dstack([(cmy - black) * 255 // (255 - black), black]).astype(np.uint8)


def _inks_on_paper(cmyk: Pixels) -> Pixels:
    paper = 255 - cmyk.astype(float)
    return np.asarray(np.round(paper[..., :3] * paper[..., 3:] / 255), dtype=np.uint8)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_cmyk_tiff(small_cat: Pixels, compression: str) -> None:
    cmyk = _inks(small_cat)
    pixels, adjustments = decoded(encode(Image.fromarray(cmyk, "CMYK"), "TIFF", compression=compression))
    assert_pixels(pixels, _inks_on_paper(cmyk), within=1)
    assert adjustments == ("cmyk_to_rgb",)


def _adobe_jpeg(stored: Pixels, *, transform: int) -> bytes:
    """Returns a four-component JPEG of these component values with Adobe's marker (Adobe TN 5116)."""
    image = Image.fromarray(255 - stored, "CMYK")  # which Pillow inverts while saving
    encoded = without_jpeg_segments(encode(image, "JPEG", quality=100, subsampling=0), 0xEE)
    return with_jpeg_segment(encoded, 0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))


def test_cmyk_jpeg_as_adobe_writes_it_is_not_a_negative(small_cat: Pixels) -> None:
    cmyk = _inks(small_cat)
    pixels, adjustments = decoded(_adobe_jpeg(255 - cmyk, transform=0))
    assert_pixels(pixels, _inks_on_paper(cmyk), within=8)  # JPEG at its best quality
    assert adjustments == ("cmyk_to_rgb",)


def test_ycck_jpeg_as_adobe_writes_it_is_not_a_negative(small_cat: Pixels) -> None:
    cmyk = _inks(small_cat)
    # JFIF's YCbCr of the inks taken as RGB: what libjpeg's YCCK turns back into inverted CMY.
    to_ycc = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    ycc = np.clip(np.round(cmyk[..., :3] @ to_ycc.T + [0, 128, 128]), 0, 255)
    pixels, adjustments = decoded(_adobe_jpeg(np.dstack([ycc, 255 - cmyk[..., 3]]).astype(np.uint8), transform=2))
    assert_pixels(pixels, _inks_on_paper(cmyk), within=10)
    assert adjustments == ("cmyk_to_rgb",)


def test_ycbcr_tiff(small_cat: Pixels) -> None:
    image = Image.fromarray(small_cat).convert("YCbCr")
    pixels, adjustments = decoded(encode(image, "TIFF"))
    assert_pixels(pixels, small_cat, within=3)  # 8-bit YCbCr rounds
    assert adjustments == ("colour_space_to_rgb",)


@pytest.mark.parametrize("bits", [32, 64], ids=["float32", "int32"])
def test_samples_without_a_known_range_are_refused_with_the_reason(bits: int) -> None:
    image = Image.new("F" if bits == 32 else "I", (8, 8))
    with pytest.raises(UnsupportedFormatError, match="no known range"):
        decode(encode(image, "TIFF"))
