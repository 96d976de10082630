"""What a model computes here is compared with what its artifact promises."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest

from app.errors import ArtifactError
from app.images.geometry import Geometry
from app.inference.artifact import Artifact, VerifiedFiles
from app.inference.engine import Probabilities
from app.inference.golden_check import check_golden
from app.store.manifest import GoldenExample

PROMISED = {b"cat": (0.75, 0.25), b"dog": (0.25, 0.75)}

pytestmark = pytest.mark.anyio


@pytest.fixture
def artifact() -> Artifact:
    """A model of two classes, of which only the golden examples matter."""
    golden = tuple(GoldenExample(image=b64encode(image), probabilities=each) for image, each in PROMISED.items())
    files = VerifiedFiles(Path("pets.pt"))
    return Artifact(files, "pets", "1", ("cat", "dog"), None, golden, Geometry(32, 24))


async def test_model_that_keeps_its_promise_passes_with_the_largest_deviation(artifact: Artifact) -> None:
    async def classify(image: bytes) -> Probabilities:
        return np.array(PROMISED[image], dtype=np.float32) + np.float32(0.0625 if image == b"dog" else 0)

    check = await check_golden(artifact, classify, bound=0.1)

    assert (check.example_count, check.max_abs_deviation, check.bound) == (2, 0.0625, 0.1)


@pytest.mark.parametrize(
    ("computed", "reason"),
    [
        ((0.5, 0.25), "a probability deviates by 0.25, more than the 0.1 allowed"),
        ((0.25, 0.75), "image 0 is 'dog' here, not 'cat'"),
        ((0.75, 0.125, 0.125), "Golden image 0 has 2 probabilities, the model 3"),
    ],
    ids=["deviation", "other class", "other count"],
)
async def test_model_that_breaks_its_promise_fails(
    artifact: Artifact, computed: tuple[float, ...], reason: str
) -> None:
    async def classify(image: bytes) -> Probabilities:
        return np.array(computed if image == b"cat" else PROMISED[image], dtype=np.float32)

    with pytest.raises(ArtifactError, match=reason):
        await check_golden(artifact, classify, bound=0.1)
