"""Fidelity (docs/artifact.md): what is served is within 0.02 of the reference for any format, mode, way up and shape.

The reference shares no code with the service but Pillow and the artifact: a full decode, then `Predictor.forward` on
the CPU in float32.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from starlette.testclient import TestClient

from app.images.decode import DecodedImage
from app.images.geometry import Geometry
from app.main import create_app
from app.settings import Settings
from tests.support.fidelity import MAX_DEVIATION, Serve, deviation
from tests.support.images import EXIF_ORIENTATIONS, PHOTO_NAMES, Pixels, encode, exif, lay_down
from tests.support.live import SERVICE_PYTHON, outside_client
from training.data.pixel_store import as_planes

pytestmark = pytest.mark.slow

FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 90},
    "JPEG-444-progressive": {"quality": 75, "subsampling": 0, "progressive": True},
    "PNG": {},
    "WEBP": {"quality": 85},
    "GIF": {},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "AVIF": {"quality": 70},
}
# Shapes from 16 x 16 to 12 MP, both ways, ratios to 1:20.
SIZES = [
    (16, 16), (33, 32), (100, 75), (225, 224), (256, 256), (300, 257), (640, 480), (480, 640), (1000, 50), (50, 1000),
    (1024, 768), (1536, 2048), (2049, 3073), (4000, 3000), (3000, 4000), (4001, 2999),
]  # fmt: skip


@pytest.fixture(scope="module")
def client(imagenet_store: Path) -> Iterator[TestClient]:
    """The service with the default model, in this process."""
    with ExitStack() as stack:
        if SERVICE_PYTHON:
            client = cast(TestClient, stack.enter_context(outside_client(model_store=imagenet_store)))
        else:
            client = stack.enter_context(TestClient(create_app(Settings(model_store=imagenet_store))))
        while client.get("/health/ready").status_code != 200:
            assert client.get("/models").json()["models"][0]["state"] in {"loading", "ready"}  # ready since, perhaps
            time.sleep(0.05)
        yield client


def resized(photo: Pixels, width: int, height: int) -> Pixels:
    """Returns the photo at another size, cut to its shape first so that it is not distorted."""
    image = ImageOps.fit(Image.fromarray(photo), (width, height), Image.Resampling.LANCZOS)
    return np.asarray(image)


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("name", PHOTO_NAMES)
def test_every_format_is_within_the_bound(
    photos: dict[str, Pixels], serve: Serve, refer: Serve, name: str, image_format: str
) -> None:
    encoded = encode(photos[name], image_format.partition("-")[0], **FORMATS[image_format])

    assert deviation(serve(encoded), refer(encoded)) <= MAX_DEVIATION


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK-JPEG", "CMYK-TIFF", "I;16-PNG", "I;16-TIFF"])
@pytest.mark.parametrize("name", PHOTO_NAMES)
def test_every_mode_is_within_the_bound(
    photos: dict[str, Pixels], serve: Serve, refer: Serve, name: str, mode: str
) -> None:
    photo = Image.fromarray(photos[name])
    mode, _, image_format = mode.partition("-")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    elif mode in {"LA", "RGBA"}:
        image = photo.convert(mode)
        image.putalpha(Image.linear_gradient("L").resize(photo.size))
    else:
        image = photo.convert(mode)
    encoded = encode(image, image_format or "PNG")

    assert deviation(serve(encoded), refer(encoded)) <= MAX_DEVIATION


@pytest.mark.parametrize("orientation", EXIF_ORIENTATIONS)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_way_up_is_within_the_bound(
    cat: Pixels, serve: Serve, refer: Serve, image_format: str, orientation: int
) -> None:
    encoded = encode(lay_down(cat, orientation), image_format, exif=exif(orientation))

    assert deviation(serve(encoded), refer(encoded)) <= MAX_DEVIATION


@pytest.mark.parametrize(("width", "height"), SIZES, ids=lambda side: str(side))
@pytest.mark.parametrize("name", PHOTO_NAMES)
def test_every_size_and_shape_is_within_the_bound(
    photos: dict[str, Pixels], serve: Serve, refer: Serve, name: str, width: int, height: int
) -> None:
    encoded = encode(resized(photos[name], width, height), "JPEG", quality=92)

    assert deviation(serve(encoded), refer(encoded)) <= MAX_DEVIATION


@pytest.mark.parametrize("name", ["cat", "china", "flower"])
def test_noisy_twelve_megapixels_at_a_reduced_scale_are_within_the_bound(
    photos: dict[str, Pixels], client: TestClient, serve: Serve, refer: Serve, name: str
) -> None:
    """Noise is what a reduced scale can lose, and 4:4:4 has twice as much of it in the colours."""
    large = resized(photos[name], 4000, 3000)
    noise = np.random.default_rng(0).normal(0, 10, large.shape[:2])[..., None]
    encoded = encode(np.clip(large + noise, 0, 255).astype(np.uint8), "JPEG", quality=90, subsampling=0)

    assert client.post("/predict", content=encoded).json()["image"]["adjustments"] == ["dct_scaled_1_2"]
    assert deviation(serve(encoded), refer(encoded)) <= MAX_DEVIATION


def test_resize_without_antialias_fails_the_same_test(
    photos: dict[str, Pixels], serve: Serve, refer: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: the commonest mistake of image services is found, whichever the photo (but the coffee)."""

    def without_antialias(image: DecodedImage, geometry: Geometry, *, exact: bool) -> Pixels:
        resize_size, image_size = geometry[:2]
        pixels = as_planes(image.to_array()).unsqueeze(0).float()  # (1, 3, H, W)
        scale = resize_size / min(pixels.shape[-2:])
        size = [round(side * scale) for side in pixels.shape[-2:]]
        small = torch.nn.functional.interpolate(pixels, size=size, mode="bilinear", antialias=False)
        top, left = (size[0] - image_size) // 2, (size[1] - image_size) // 2
        crop = small[0, :, top : top + image_size, left : left + image_size].round().to(torch.uint8)
        return crop.permute(1, 2, 0).numpy()

    monkeypatch.setattr("app.inference.prepare.resize_and_crop", without_antialias)
    encoded = {name: encode(resized(photo, 1024, 768), "JPEG", quality=92) for name, photo in photos.items()}
    failing = {name for name, photo in encoded.items() if deviation(serve(photo), refer(photo)) > MAX_DEVIATION}

    assert failing >= {"cat", "rocket", "china", "flower"}
