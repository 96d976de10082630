"""Training sees the very pixels that the service and the exported model see."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from app.images.decode import DecodedImage, decode
from app.images.resize import resize_and_crop as serve_resize_and_crop
from tests.support.images import Pixels
from training.data.geometry import resize_and_crop
from training.export.predictor import Predictor


def _decoded(pixels: Pixels) -> DecodedImage:
    return DecodedImage(Image.fromarray(pixels), "PNG", pixels.shape[1], pixels.shape[0], ())


@pytest.mark.parametrize(("resize_size", "image_size"), [(256, 224), (64, 56), (31, 31), (40, 7)])
@pytest.mark.parametrize("shape", [(300, 451), (451, 300), (300, 90), (97, 50), (49, 84), (20, 21), (7, 300)])
def test_pixels_are_the_predictors_to_the_bit(
    cat: Pixels, shape: tuple[int, int], resize_size: int, image_size: int
) -> None:
    pixels = np.ascontiguousarray(np.resize(cat, (*shape, 3)))
    predictor = Predictor(
        nn.Identity(), ["a"], image_size=image_size, resize_size=resize_size, mean=[0.5] * 3, std=[0.5] * 3
    )
    expected = predictor.resize_and_crop(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    found = resize_and_crop(_decoded(pixels), resize_size=resize_size, image_size=image_size)
    np.testing.assert_array_equal(found, expected)


def test_reduced_decoding_gives_the_services_pixels(photo: Pixels) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, format="JPEG")
    image = decode(buffer.getvalue(), min_shorter_side=64)
    assert image.scale > 1
    found = resize_and_crop(image, resize_size=32, image_size=28)
    served = serve_resize_and_crop(image, resize_size=32, image_size=28).permute(1, 2, 0).numpy()
    # Pillow rounds between the axes in either order.
    assert np.abs(found.astype(int) - served.astype(int)).max() <= 1


def test_an_extremely_tall_image_costs_no_more_than_its_pixels() -> None:
    tall = np.zeros((60_000, 1, 3), dtype=np.uint8)
    assert resize_and_crop(_decoded(tall), resize_size=64, image_size=56).shape == (56, 56, 3)
