"""The service's resize equals the Predictor's to the bit, which lets a golden check be strict."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from app.images.decode import DecodedImage, decode
from app.images.geometry import Geometry
from app.images.resize import resize_and_crop
from tests.support.images import EXIF_ORIENTATIONS, Pixels, encode, exif, lay_down
from training.data.pixel_store import as_planes
from training.export.predictor import Predictor


def reference(pixels: torch.Tensor, *, resize_size: int, image_size: int) -> torch.Tensor:
    """`Predictor.resize_and_crop` of one image."""
    predictor = Predictor(
        nn.Identity(), ["a"], image_size=image_size, resize_size=resize_size, mean=[0.5] * 3, std=[0.5] * 3
    )
    return predictor.resize_and_crop(pixels.unsqueeze(0))[0]


def whole(pixels: Pixels) -> DecodedImage:
    """An image decoded in full."""
    image = Image.fromarray(pixels)
    return DecodedImage(image, "PNG", image.width, image.height, ())


@pytest.mark.parametrize(
    ("width", "height"),
    [(451, 300), (300, 451), (640, 480), (480, 640), (256, 256), (257, 256), (256, 257), (16, 16), (17, 23),
     (60_000, 1), (1, 60_000), (1, 1), (2000, 100), (100, 2000), (1001, 999), (601, 403), (403, 601)],
)  # fmt: skip
def test_resize_equals_the_predictors_to_the_bit(cat: Pixels, width: int, height: int) -> None:
    image = whole(np.asarray(Image.fromarray(cat).resize((width, height), Image.Resampling.BICUBIC)))
    crop = resize_and_crop(image, Geometry(256, 224))

    assert torch.equal(as_planes(crop), reference(as_planes(image.to_array()), resize_size=256, image_size=224))


@hypothesis_settings(deadline=None, max_examples=150)
@given(
    width=st.integers(1, 500),
    height=st.integers(1, 500),
    sizes=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    seed=st.integers(0, 9),
)
def test_resize_equals_the_predictors_on_any_size(width: int, height: int, sizes: tuple[int, int], seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image_size, resize_size = sorted(sizes)
    crop = resize_and_crop(whole(noise), Geometry(resize_size, image_size))

    expected = reference(as_planes(noise), resize_size=resize_size, image_size=image_size)
    assert torch.equal(as_planes(crop), expected)


@pytest.mark.parametrize("geometry", [Geometry(72, 64, "bicubic"), Geometry(64, 64, "bicubic", "squash"),
                                      Geometry(64, 64, "bilinear", "squash")], ids=str)  # fmt: skip
@pytest.mark.parametrize(("width", "height"), [(451, 300), (300, 451), (640, 480), (16, 16), (1001, 99), (5, 400)])
def test_every_geometry_equals_the_predictors_to_the_bit(
    cat: Pixels, geometry: Geometry, width: int, height: int
) -> None:
    image = whole(np.asarray(Image.fromarray(cat).resize((width, height), Image.Resampling.BICUBIC)))
    exact, near = (resize_and_crop(image, geometry, exact=exact) for exact in (True, False))

    resize_size, image_size, interpolation, fit = geometry
    predictor = Predictor(
        nn.Identity(), ["a"], image_size=image_size, resize_size=resize_size, mean=[0.5] * 3, std=[0.5] * 3,
        interpolation=interpolation, fit=fit,
    )  # fmt: skip
    expected = predictor.resize_and_crop(as_planes(image.to_array()).unsqueeze(0))[0]
    assert torch.equal(as_planes(exact), expected)
    assert np.abs(near.astype(int) - exact).max() <= 1
    assert (near != exact).mean() < 0.02


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (1024, 768), (33, 32), (1200, 300), (300, 1201)])
def test_resize_that_need_not_be_exact_differs_by_a_level_here_and_there(cat: Pixels, width: int, height: int) -> None:
    image = whole(np.asarray(Image.fromarray(cat).resize((width, height), Image.Resampling.BICUBIC)))
    exact, near = (resize_and_crop(image, Geometry(256, 224), exact=exact) for exact in (True, False))

    assert np.abs(near.astype(int) - exact).max() <= 1
    assert (near != exact).mean() < 0.01


def test_resize_of_a_long_image_is_bounded_though_it_need_not_be_exact() -> None:
    """Resized whole, it would have ten million columns."""
    long = whole(np.zeros((1, 40_000, 3), dtype=np.uint8))

    assert resize_and_crop(long, Geometry(256, 224), exact=False).shape == (224, 224, 3)


@pytest.mark.parametrize("orientation", EXIF_ORIENTATIONS)
@pytest.mark.parametrize(("width", "height"), [(1203, 901), (901, 1203)])
def test_reduced_scale_sits_on_the_grid_of_the_full_one(cat: Pixels, width: int, height: int, orientation: int) -> None:
    """Sizes that no scale divides, any way up: were the window off by half a pixel, edges would differ by far more."""
    upright = np.asarray(Image.fromarray(cat).resize((width, height), Image.Resampling.LANCZOS))
    jpeg = encode(lay_down(upright, orientation), "JPEG", quality=95, subsampling=0, exif=exif(orientation))
    reduced = decode(jpeg, min_shorter_side=200)
    assert reduced.scale == 4
    full = decode(jpeg)
    crops = [resize_and_crop(image, Geometry(50, 44)).astype(float) for image in (reduced, full)]
    shifted = resize_and_crop(
        DecodedImage(reduced.pixels, "JPEG", full.width, full.height, (), 4, (0.5, 0.5)), Geometry(50, 44)
    ).astype(float)

    assert np.abs(crops[0] - crops[1]).mean() < 0.7
    assert np.abs(crops[0] - crops[1]).mean() < np.abs(shifted - crops[1]).mean() / 2


@pytest.mark.parametrize(("width", "height"), [(4000, 3000), (2999, 4001), (2049, 6000), (5472, 3648)])
def test_reduced_image_is_resized_as_pillow_does_it(
    cat: Pixels, width: int, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5472 x 3648 is of a size whose pixels Pillow keeps in several pieces of memory."""
    large = Image.fromarray(cat).resize((width, height), Image.Resampling.BICUBIC)
    reduced = decode(encode(np.asarray(large), "JPEG", quality=90), min_shorter_side=1024)
    assert reduced.scale > 1
    crop = resize_and_crop(reduced, Geometry(256, 224))
    monkeypatch.setattr("app.images.resize.Resizer", None)  # as on a platform without a wheel
    by_pillow = resize_and_crop(reduced, Geometry(256, 224))

    difference = np.abs(crop.astype(int) - by_pillow)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.005
