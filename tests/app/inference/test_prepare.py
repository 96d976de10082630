"""An image is prepared to the model's sizes, exactly where the engine computes in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.errors import UnsupportedFormatError
from app.images.decode import decode
from app.images.geometry import Geometry
from app.images.limits import DEFAULT_LIMITS, ImageLimits
from app.images.resize import resize_and_crop
from app.inference.artifact import Artifact, VerifiedFiles
from app.inference.engine import Precision
from app.inference.prepare import prepare
from tests.support.images import encode

NOISE = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)


SMALL = Geometry(32, 24)


def artifact(geometry: Geometry | None = SMALL) -> Artifact:
    """A model of which only the geometry matters; without one, it resizes by itself."""
    files = VerifiedFiles(Path("noise.pt"))
    return Artifact(files, "noise", "1", ("noise",), None, (), geometry)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_resize_is_exact_for_float32_alone(precision: Precision) -> None:
    encoded = encode(NOISE, "PNG")
    image = prepare(encoded, artifact(), precision, DEFAULT_LIMITS)

    exact, near = (resize_and_crop(decode(encoded), Geometry(32, 24), exact=exact) for exact in (True, False))
    assert not np.array_equal(exact, near)
    assert np.array_equal(image.pixels, exact if precision == "float32" else near)


def test_large_jpeg_is_decoded_at_the_smallest_scale_that_keeps_four_times_the_resize_size() -> None:
    encoded = encode(NOISE, "JPEG")

    assert prepare(encoded, artifact(), "float32", DEFAULT_LIMITS).adjustments == ("dct_scaled_1_2",)
    assert prepare(encoded, artifact(Geometry(76, 24)), "float32", DEFAULT_LIMITS).adjustments == ()


def test_size_and_format_of_the_file_are_told() -> None:
    image = prepare(encode(NOISE, "JPEG"), artifact(), "float32", DEFAULT_LIMITS)

    assert (image.format, image.width, image.height) == ("JPEG", 400, 300)
    assert image.pixels.shape == (24, 24, 3)
    assert image.decode_s > 0
    assert image.resize_s > 0


def test_model_that_resizes_by_itself_gets_all_pixels() -> None:
    image = prepare(encode(NOISE, "PNG"), artifact(None), "float32", DEFAULT_LIMITS)

    assert np.array_equal(image.pixels, NOISE)
    assert image.resize_s == 0


def test_limits_are_kept() -> None:
    with pytest.raises(UnsupportedFormatError):
        prepare(encode(NOISE, "PNG"), artifact(), "float32", ImageLimits(formats=("JPEG",)))
