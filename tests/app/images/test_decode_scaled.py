"""A JPEG that is decoded at a reduced scale is the full image, averaged."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from app.images.decode import decode
from tests.support.images import EXIF_ORIENTATIONS, Pixels, encode, exif, lay_down


def _largest_scale(shorter: int, min_shorter_side: int) -> int:
    return max(scale for scale in (1, 2, 4, 8) if scale == 1 or shorter >= scale * min_shorter_side)


@pytest.mark.parametrize("min_shorter_side", [8, 16, 64, 512])
@pytest.mark.parametrize("excess", [-1, 0, 1, 3, 7])
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_the_shorter_side_never_falls_below_its_minimum(min_shorter_side: int, excess: int, scale: int) -> None:
    shorter = max(scale * min_shorter_side + excess, 1)
    for size in ((shorter, shorter * 5 // 4), (shorter * 5 // 4 + 1, shorter)):
        image = decode(encode(Image.new("L", size), "JPEG"), min_shorter_side=min_shorter_side)
        used = _largest_scale(shorter, min_shorter_side)
        assert (image.width, image.height) == size
        assert image.pixels.size == (-(-size[0] // used), -(-size[1] // used))  # libjpeg rounds up
        assert min(image.pixels.size) >= min(min_shorter_side, shorter)
        scaled = () if used == 1 else (f"dct_scaled_1_{used}",)
        assert image.adjustments == (*scaled, "grey_to_rgb")


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_reduced_image_is_the_full_one_averaged(
    cat: Pixels, scale: int, subsampling: str, progressive: bool
) -> None:
    encoded = encode(cat[:296, :448], "JPEG", quality=95, subsampling=subsampling, progressive=progressive)
    image = decode(encoded, min_shorter_side=296 // scale)
    averaged = np.asarray(decode(encoded).pixels).reshape(296 // scale, scale, 448 // scale, scale, 3).mean((1, 3))
    assert image.adjustments == (f"dct_scaled_1_{scale}",)
    # The DCT's low frequencies are a little sharper than averages.
    assert np.abs(np.asarray(image.pixels) - averaged).mean() < 2


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_reduced_image_is_set_upright_and_reports_its_full_size(cat: Pixels, orientation: int) -> None:
    stored = lay_down(cat, orientation)
    image = decode(encode(stored, "JPEG", quality=95, exif=exif(orientation)), min_shorter_side=150)
    assert (image.width, image.height, image.pixels.size) == (451, 300, (226, 150))
    assert image.adjustments == ("dct_scaled_1_2", "exif_orientation")
    thumbnail = Image.fromarray(cat).resize((226, 150), Image.Resampling.BOX)
    assert np.abs(np.asarray(image.pixels).astype(int) - np.asarray(thumbnail)).mean() < 5


def test_cmyk_is_reduced_as_well(cat: Pixels) -> None:
    encoded = encode(Image.fromarray(cat).convert("CMYK"), "JPEG", quality=95)
    image = decode(encoded, min_shorter_side=150)
    assert image.adjustments == ("dct_scaled_1_2", "cmyk_to_rgb")
    assert np.abs(np.asarray(image.pixels).astype(int) - cat[::2, ::2]).mean() < 12


def test_a_multi_picture_jpeg_is_reduced_as_well(cat: Pixels) -> None:
    encoded = encode(Image.fromarray(cat), "MPO", save_all=True, append_images=[Image.fromarray(cat[::4, ::4])])
    image = decode(encoded, min_shorter_side=150)
    assert (image.pixels.size, image.adjustments) == ((226, 150), ("dct_scaled_1_2",))


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF", "AVIF", "GIF", "BMP"])
def test_only_jpegs_are_reduced(cat: Pixels, image_format: str) -> None:
    assert decode(encode(cat, image_format), min_shorter_side=16).pixels.size == (451, 300)


def test_nothing_is_reduced_unless_asked_for(cat: Pixels) -> None:
    encoded = encode(cat, "JPEG")
    image = decode(encoded)
    assert image.adjustments == ()
    assert np.array_equal(np.asarray(image.pixels), np.asarray(Image.open(io.BytesIO(encoded))))


@pytest.mark.parametrize("orientation", EXIF_ORIENTATIONS)
@pytest.mark.parametrize("size", [(241, 163), (240, 160), (243, 162)], ids=str)
def test_reduced_pixels_lie_where_scale_and_offset_say(size: tuple[int, int], orientation: int) -> None:
    """On a ramp of one level a pixel, a pixel's value tells where it lies at full scale."""
    width, height = size
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0] = np.arange(width)
    ramp[..., 1] = np.arange(height)[:, None]
    stored = lay_down(ramp, orientation)
    image = decode(
        encode(stored, "JPEG", quality=100, subsampling="4:4:4", exif=exif(orientation)), min_shorter_side=40
    )
    assert (image.width, image.height, image.scale) == (width, height, 4)
    pixels = np.asarray(image.pixels).astype(float)
    (x, y), inside = image.offset, slice(3, -3)  # libjpeg repeats the border where it fills its last blocks
    columns = (np.arange(pixels.shape[1]) + 0.5 - x) * 4 - 0.5
    rows = (np.arange(pixels.shape[0]) + 0.5 - y) * 4 - 0.5
    for found, expected in ((pixels[..., 0], columns), (pixels[..., 1], rows[:, None])):
        difference = (found - expected)[inside, inside]
        assert np.abs(difference).max() < 2  # each is half a level off by rounding, and JPEG has its say
        assert abs(difference.mean()) < 0.6


@pytest.mark.slow
def test_photo_of_108_megapixels_is_decoded_at_a_reduced_scale_by_default() -> None:
    image = decode(encode(Image.new("RGB", (12_032, 9_024), (200, 30, 30)), "JPEG"), min_shorter_side=1_024)
    assert (image.width, image.height, image.scale, image.pixels.size) == (12_032, 9_024, 8, (1_504, 1_128))
