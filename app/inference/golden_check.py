"""Proves that a model computes on this machine what its artifact promises: warm-up, then the golden check.

engine -> a few batches of grey images -> check for probabilities -> golden images through the pipeline -> compare
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.errors import ArtifactError
from app.inference.artifact import Artifact
from app.inference.engine import Engine, Pixels, Precision, Probabilities

MAX_GOLDEN_DEVIATION: Final = 1e-3
"""The largest |dp| that the golden check allows in float32; docs/artifact.md."""

MAX_DEVIATIONS: Final[dict[Precision, float]] = {"float32": MAX_GOLDEN_DEVIATION, "bfloat16": 0.1, "float16": 0.02}
"""The largest |dp| that the golden check allows in each precision. docs/performance.md has what was measured."""

# Width and height of a second image that a model with only `forward` is tried on, as odd as a photo's may be.
_ANOTHER_SIZE: Final = (333, 251)


@dataclass(frozen=True)
class GoldenCheck:
    """The outcome of a golden check that was passed.

    Attributes:
        example_count: how many golden images were compared.
        max_abs_deviation: the largest |p_served - p_reference| of all probabilities.
        bound: the largest deviation that was allowed.
    """

    example_count: int
    max_abs_deviation: float
    bound: float


@dataclass(frozen=True)
class Candidate:
    """An engine that was considered for a model.

    Attributes:
        engine: the engine's name.
        golden_check: the outcome of its golden check; None if it failed, or the model has no golden examples.
        rejected_because: why the engine was left out; None if it was not.
    """

    engine: str
    golden_check: GoldenCheck | None = None
    rejected_because: str | None = None


def grey_image(artifact: Artifact) -> Pixels:
    """Returns a plain grey image as the model's engine takes it, uint8 `(S, S, 3)`."""
    side = artifact.geometry.image_size if artifact.geometry else 224
    return _grey(side, side)


def warm_up(artifact: Artifact, engine: Engine, max_batch_size: int) -> None:
    """Computes a few batches, so that no request waits for what is done only once, and checks what comes out.

    A model with only `forward` has to take images of any size, so images of two sizes are tried.

    Args:
        artifact: the model.
        engine: the engine to warm up.
        max_batch_size: the most images that a batch will have.

    Raises:
        ArtifactError: the model fails, or its output is not probabilities.
    """
    grey = grey_image(artifact)
    # On a CPU a large batch only takes longer; on a GPU it may be too large.
    sizes = {1, 2} if engine.device == "cpu" else {1, 2, max_batch_size}
    batches = [[grey] * batch_size for batch_size in sorted(sizes)]
    if not artifact.is_split:
        batches.insert(1, [_grey(*_ANOTHER_SIZE)])
    for batch in batches:
        for _ in range(engine.warm_up_runs if len(batch) <= 2 else 1):  # what is compiled then serves larger ones too
            try:
                probabilities = engine(batch)
            except Exception as error:  # what a model's own code raises is of many kinds
                reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
                raise ArtifactError(f"The model fails on {_described(batch, grey)}: {reason}") from error
        _check_probabilities(probabilities)


def _grey(width: int, height: int) -> Pixels:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def _described(batch: list[Pixels], square: Pixels) -> str:
    """Names a batch of grey images that a model fails on."""
    height, width, _ = batch[0].shape
    if len(batch) > 1:
        return f"a batch of {len(batch)} plain grey images of {width} x {height}, though not on one alone"
    if batch[0] is square:
        return f"a plain grey image of {width} x {height}"
    side = square.shape[0]
    return (
        f"a plain grey image of {width} x {height}, though not on one of {side} x {side}; its forward must take images "
        "of any size and resize them itself"
    )


def _check_probabilities(probabilities: Probabilities) -> None:
    sums = probabilities.sum(axis=1)
    if probabilities.min() < 0 or not np.allclose(sums, 1, atol=1e-3):
        raise ArtifactError(
            f"The model's output is not probabilities (a row sums to {sums[0]:.4g}): end its forward with a softmax."
        )


async def check_golden(
    artifact: Artifact, classify: Callable[[bytes], Awaitable[Probabilities]], *, bound: float
) -> GoldenCheck:
    """Classifies all golden images at once and compares what comes out with what the artifact promises.

    Args:
        artifact: the model, with its golden examples.
        classify: takes an encoded image to its probabilities `(C,)`, on the very path that requests take.
        bound: the largest |dp| allowed.

    Raises:
        ArtifactError: the top class differs, or a probability by more than the bound.
    """
    served = await asyncio.gather(*(classify(example.image) for example in artifact.golden))
    deviations = []
    for number, (example, got) in enumerate(zip(artifact.golden, served, strict=True)):
        expected = np.array(example.probabilities, dtype=np.float32)
        if expected.shape != got.shape:
            raise ArtifactError(f"Golden image {number} has {len(expected)} probabilities, the model {len(got)}.")
        if expected.argmax() != got.argmax():
            promised, given = (artifact.class_names[int(p.argmax())] for p in (expected, got))
            raise ArtifactError(f"The golden check failed: image {number} is {given!r} here, not {promised!r}.")
        deviations.append(float(np.abs(expected - got).max()))
    if max(deviations) > bound:
        raise ArtifactError(
            f"The golden check failed: a probability deviates by {max(deviations):.2g}, "
            f"more than the {bound:g} allowed."
        )
    return GoldenCheck(len(deviations), max(deviations), bound)
