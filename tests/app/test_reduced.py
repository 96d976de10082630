"""What a JPEG decoded at a reduced scale loses is made up for as far as it can be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from app.decode import DecodedImage, decode
from app.reduced import axis_weights
from app.resize import resize_and_crop
from tests.images import Pixels, encode


def enlarged(photo: Pixels, factor: int) -> Pixels:
    """A photo with the detail of its own size, on many more pixels."""
    image = Image.fromarray(photo)
    return np.asarray(image.resize((image.width * factor, image.height * factor), Image.Resampling.LANCZOS))


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_reduced_decoding_gives_the_means_of_blocks(cat: Pixels, scale: int) -> None:
    """What the weights are made for: were libjpeg to give anything else, they would be wrong."""
    grey = encode(Image.fromarray(cat[:296, :448]).convert("L"), "JPEG", quality=90)
    pixels = np.asarray(decode(grey).pixels)[..., 0].astype(float)
    reduced = decode(grey, min_shorter_side=296 // scale)
    means = pixels.reshape(296 // scale, scale, 448 // scale, scale).mean(axis=(1, 3))

    assert reduced.scale == scale
    assert np.abs(np.asarray(reduced.pixels)[..., 0] - means).mean() < 0.3  # rounding, and 0 to 255 clipped


@pytest.mark.parametrize("turned", [False, True])
def test_crop_is_nearer_to_the_full_ones_than_plain_filtering(photo: Pixels, turned: bool) -> None:
    large = enlarged(photo, 3)
    encoded = encode(np.ascontiguousarray(np.rot90(large)) if turned else large, "JPEG", quality=90)
    reduced = decode(encoded, min_shorter_side=200)
    assert reduced.scale == 4
    exact = resize_and_crop(decode(encoded), resize_size=75, image_size=64).float()
    plain = DecodedImage(reduced.pixels, "JPEG", *reduced.pixels.size, ())

    error = (resize_and_crop(reduced, resize_size=75, image_size=64).float() - exact).abs().mean()
    assert error < 0.35
    assert error < (resize_and_crop(plain, resize_size=75, image_size=64).float() - exact).abs().mean() * 0.75


def test_an_even_picture_stays_even() -> None:
    encoded = encode(Image.new("RGB", (1203, 901), (90, 160, 31)), "JPEG", quality=95)
    image = decode(encoded, min_shorter_side=200)
    crop = resize_and_crop(image, resize_size=64, image_size=56)

    assert image.scale == 4
    assert crop.shape == (3, 56, 56)
    assert crop.stride() == (1, 3 * 56, 3)  # channels-last
    assert len(torch.unique(crop.reshape(3, -1), dim=1).T) == 1


@pytest.mark.parametrize(("length", "scale", "shift"), [(3000, 4, 0), (2999, 4, 1), (901, 8, 3), (64, 8, 0)])
def test_weights_of_each_pixel_sum_to_one(length: int, scale: int, shift: int) -> None:
    count = -(-(length + shift) // scale)
    weights = axis_weights(0.0, float(length), 50, length, scale, shift, count)

    assert 0 <= weights.first < weights.last <= count
    torch.testing.assert_close(weights.apply(torch.ones(weights.last - weights.first, 2)), torch.ones(50, 2))
