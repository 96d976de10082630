"""Files of every format become upright RGB, equal to what Pillow reads another way and to what was written."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.errors import EmptyBodyError, UnsupportedFormatError
from app.images.decode import decode
from app.images.limits import FORMATS, ImageFormat, ImageLimits
from tests.support.file_structures import structures
from tests.support.images import EXIF_ORIENTATIONS, Pixels, encode, exif, interlaced_png, lay_down, png, png_chunk, tiff

LOSSLESS = [
    pytest.param("PNG", {}, id="PNG"),
    pytest.param("WEBP", {"lossless": True}, id="WebP-lossless"),
    pytest.param("BMP", {}, id="BMP"),
    pytest.param("TIFF", {}, id="TIFF"),
    *[
        pytest.param("TIFF", {"compression": name}, id=name)
        for name in ("tiff_lzw", "tiff_deflate", "packbits", "lzma", "zstd")
    ],
    pytest.param("TIFF", {"big_tiff": True}, id="BigTIFF"),
]
LOSSY = [
    pytest.param("JPEG", {}, id="JPEG"),
    pytest.param("JPEG", {"progressive": True, "quality": 90}, id="JPEG-progressive"),
    pytest.param("JPEG", {"subsampling": 0, "restart_marker_rows": 1}, id="JPEG-4:4:4-restart"),
    pytest.param("WEBP", {"quality": 80}, id="WebP-lossy"),
    pytest.param("AVIF", {"quality": 80}, id="AVIF"),
    pytest.param("TIFF", {"compression": "jpeg"}, id="TIFF-jpeg"),
]
EVERY_FORMAT = [
    pytest.param("JPEG", {"quality": 95}, id="JPEG"),
    pytest.param("PNG", {}, id="PNG"),
    pytest.param("WEBP", {"lossless": True}, id="WebP"),
    pytest.param("TIFF", {}, id="TIFF"),
    pytest.param("TIFF", {"compression": "tiff_lzw"}, id="TIFF-lzw"),
    pytest.param("AVIF", {"quality": 90}, id="AVIF"),
]


@pytest.mark.parametrize(("image_format", "options"), LOSSLESS)
def test_lossless_formats_give_the_pixels_that_were_written(
    photo: Pixels, image_format: str, options: dict[str, Any]
) -> None:
    image = decode(encode(photo, image_format, **options))
    assert image.format == image_format
    assert (image.width, image.height) == (photo.shape[1], photo.shape[0])
    assert image.adjustments == ()
    assert np.array_equal(np.asarray(image.pixels), photo)


@pytest.mark.parametrize(("image_format", "options"), LOSSY)
def test_lossy_formats_give_the_codecs_pixels(cat: Pixels, image_format: str, options: dict[str, Any]) -> None:
    encoded = encode(cat, image_format, **options)
    image = decode(encoded)
    assert (image.format, image.width, image.height, image.adjustments) == (image_format, 451, 300, ())
    assert np.array_equal(np.asarray(image.pixels), np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")))
    assert np.abs(np.asarray(image.pixels).astype(int) - cat).mean() < 6


def test_an_interlaced_png_is_the_same_image(small_cat: Pixels) -> None:
    assert np.array_equal(np.asarray(decode(interlaced_png(small_cat)).pixels), small_cat)


def test_a_multi_picture_jpeg_is_its_first_picture(cat: Pixels) -> None:
    first, preview = Image.fromarray(cat), Image.fromarray(cat[::4, ::4])
    image = decode(encode(first, "MPO", save_all=True, append_images=[preview]))
    assert (image.format, image.width, image.height, image.adjustments) == ("JPEG", 451, 300, ())
    assert np.array_equal(np.asarray(image.pixels), np.asarray(decode(encode(first, "JPEG")).pixels))


def _tiled_tiff(pixels: Pixels, tile: int) -> bytes:
    height, width, _ = pixels.shape
    rows, columns = -(-height // tile), -(-width // tile)
    padded = np.zeros((rows * tile, columns * tile, 3), np.uint8)
    padded[:height, :width] = pixels
    assert rows * columns == 1, "one tile: `tiff` fills in one offset"
    tags = {256: (4, [width]), 257: (4, [height]), 258: (3, [8] * 3), 259: (3, [1]), 262: (3, [2]), 277: (3, [3])}
    tags |= {322: (4, [tile]), 323: (4, [tile]), 324: (4, [0]), 325: (4, [padded.nbytes])}
    return tiff(padded.tobytes(), tags)


def test_a_tiled_tiff_is_cut_to_its_size(small_cat: Pixels) -> None:
    image = decode(_tiled_tiff(small_cat, 80))
    assert np.array_equal(np.asarray(image.pixels), small_cat)


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_first_frame_of_an_animation_is_taken_and_told(cat: Pixels, image_format: str) -> None:
    first, second = Image.fromarray(cat).quantize(200), Image.fromarray(255 - cat).quantize(200)
    if image_format != "GIF":
        first, second = first.convert("RGB"), second.convert("RGB")
    lossless: dict[str, dict[str, Any]] = {
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    options = lossless.get(image_format, {})
    image = decode(encode(first, image_format, save_all=True, append_images=[second, first], **options))
    difference = np.abs(np.asarray(image.pixels).astype(int) - np.asarray(first.convert("RGB")))
    assert difference.max() <= (8 if image_format == "AVIF" else 0)  # AVIF's YCbCr rounds
    assert image.adjustments == (("palette_to_rgb", "first_frame") if image_format == "GIF" else ("first_frame",))


def test_damage_behind_the_first_frame_does_not_matter(cat: Pixels) -> None:
    first, second = Image.fromarray(cat).quantize(200), Image.fromarray(255 - cat).quantize(200)
    encoded = encode(first, "GIF", save_all=True, append_images=[second])
    image = decode(encoded[: len(encoded) * 3 // 4])
    assert np.array_equal(np.asarray(image.pixels), np.asarray(first.convert("RGB")))


def test_the_transparent_part_of_a_gif_is_white(cat: Pixels) -> None:
    image = Image.fromarray(cat).quantize(200)
    indices = np.array(image)
    indices[:20] = 255
    with_hole = Image.fromarray(indices, "P")
    with_hole.putpalette(image.getpalette() or [])
    decoded = decode(encode(with_hole, "GIF", transparency=255))
    expected = np.array(image.convert("RGB"))
    expected[:20] = 255
    assert np.array_equal(np.asarray(decoded.pixels), expected)
    assert decoded.adjustments == ("palette_to_rgb", "alpha_on_white")


def test_the_part_of_a_gif_that_its_first_frame_leaves_free_is_white(small_cat: Pixels) -> None:
    whole = encode(Image.fromarray(small_cat).quantize(64), "GIF")
    expected = np.full((60, 80, 3), 255, np.uint8)
    expected[:48, :64] = np.asarray(decode(whole).pixels)
    larger_screen = whole[:6] + (80).to_bytes(2, "little") + (60).to_bytes(2, "little") + whole[10:]
    image = decode(larger_screen)
    assert (image.width, image.height) == (80, 60)
    assert image.adjustments == ("palette_to_rgb", "alpha_on_white")
    assert np.array_equal(np.asarray(image.pixels), expected)


@pytest.mark.parametrize("orientation", EXIF_ORIENTATIONS)
@pytest.mark.parametrize(("image_format", "options"), EVERY_FORMAT)
def test_every_exif_orientation_is_set_upright(
    small_cat: Pixels, image_format: str, options: dict[str, Any], orientation: int
) -> None:
    stored = lay_down(small_cat, orientation)
    as_stored = np.asarray(decode(encode(stored, image_format, **options)).pixels)  # what the codec makes of it
    image = decode(encode(stored, image_format, exif=exif(orientation), **options))
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    assert np.array_equal(np.asarray(image.pixels), lay_down(as_stored, inverse))
    assert np.abs(np.asarray(image.pixels).astype(int) - small_cat).mean() < 6
    assert (image.width, image.height) == (64, 48)
    assert image.adjustments == (() if orientation == 1 else ("exif_orientation",))


def test_the_orientation_of_a_png_may_follow_its_pixels(small_cat: Pixels) -> None:
    stored = lay_down(small_cat, 6)
    encoded = encode(stored, "PNG")
    behind = png_chunk(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0"))
    image = decode(encoded[:-12] + behind + encoded[-12:])
    assert np.array_equal(np.asarray(image.pixels), small_cat)
    assert (image.width, image.height, image.adjustments) == (64, 48, ("exif_orientation",))


@pytest.mark.parametrize("metadata", [b"Exif\0\0damaged", exif(9).tobytes(), exif(0).tobytes()])
def test_damaged_exif_does_not_make_the_pixels_unreadable(small_cat: Pixels, metadata: bytes) -> None:
    encoded = encode(small_cat, "JPEG")
    image = decode(encode(small_cat, "JPEG", exif=metadata))
    assert image.adjustments == ()
    assert np.array_equal(np.asarray(image.pixels), np.asarray(decode(encoded).pixels))


def test_the_array_has_its_own_memory(small_cat: Pixels) -> None:
    image = decode(encode(small_cat, "PNG"))
    pixels = image.to_array()
    assert (pixels.dtype.name, pixels.shape, pixels.flags.c_contiguous) == ("uint8", (48, 64, 3), True)
    assert np.array_equal(pixels, small_cat)
    pixels[:] = 0
    assert np.array_equal(np.asarray(image.pixels), small_cat)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_of_bytes_is_read(small_cat: Pixels, kind: type) -> None:
    assert decode(kind(encode(small_cat, "PNG"))).format == "PNG"


def test_nothing_is_no_image() -> None:
    with pytest.raises(EmptyBodyError):
        decode(b"")


def test_the_names_of_the_formats_that_are_served_are_in_the_refusal() -> None:
    with pytest.raises(UnsupportedFormatError, match="JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIC"):
        decode(b"not an image at all")


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_format_that_is_switched_off_is_refused_by_name(small_cat: Pixels, image_format: ImageFormat) -> None:
    others = tuple(other for other in FORMATS if other != image_format)
    encoded = structures(small_cat)[image_format]
    with pytest.raises(UnsupportedFormatError, match=f"{image_format} images are switched off"):
        decode(encoded, limits=ImageLimits(formats=others))
    assert decode(encoded, limits=ImageLimits(formats=(image_format,))).format == image_format


def test_text_in_a_png_may_be_long(small_cat: Pixels) -> None:
    rows = [row.tobytes() for row in small_cat]
    text = [(b"tEXt", b"Comment\0" + b"x" * 100_000)]
    image = decode(png(rows, width=64, bit_depth=8, colour_type=2, before_pixels=text))
    assert np.array_equal(np.asarray(image.pixels), small_cat)
