"""What an engine is: it computes the probabilities of a batch of prepared images, (N, C) float32.

TorchScript is the reference: frozen (batch norm folded), channels-last, no gradients. engine_choice.py says which
engine serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""The pixels of one image, `(H, W, 3)`."""
Samples = npt.NDArray[np.float32]
"""The samples of one image of the network's size, `(S, S, 3)` from 0 to 255, that were not made from 8 bits."""
Probabilities = npt.NDArray[np.float32]
Precision = Literal["float32", "bfloat16", "float16"]


class UnavailableError(Exception):
    """The engine cannot be used here. The sentence says why."""


class InferenceError(Exception):
    """The model did not give probabilities for an image that it should have."""


class OutOfDeviceMemoryError(InferenceError):
    """The device's memory is too small for even one image, perhaps only now."""


class Engine(Protocol):
    """Computes probabilities. Several streams call it at once."""

    @property
    def name(self) -> str:
        """The name of the library that computes."""

    @property
    def precision(self) -> Precision:
        """The precision of weights and activations. Input and output have the same types in every precision."""

    @property
    def device(self) -> str:
        """The devices that it computes on: `cpu`, `cuda:0`, `cuda:0,cuda:1`, ..."""

    @property
    def warm_up_runs(self) -> int:
        """How many batches of one size it must compute until it has its full speed."""

    @property
    def takes_samples(self) -> bool:
        """Whether it computes images of `Samples` too, which only clients of normalised tensors send."""

    def __call__(self, images: Sequence[Pixels | Samples]) -> Probabilities:
        """Computes probabilities.

        Args:
            images: N images, each uint8 `(S, S, 3)`, or `(H, W, 3)` for a model with only `forward`; if it takes
                samples, float32 `(S, S, 3)` as well, also among the others.

        Returns:
            the probabilities, float32 `(N, C)`.

        Raises:
            InferenceError: the output has another shape, or is not finite.
        """


def has_samples(images: Sequence[Pixels | Samples]) -> bool:
    """Returns whether one of the images does not have 8 bits a sample."""
    return any(image.dtype != np.uint8 for image in images)


def checked(probabilities: Probabilities, *, image_count: int, class_count: int) -> Probabilities:
    """Returns what an engine computed, if it can be probabilities.

    Args:
        probabilities: the engine's output.
        image_count: N, how many images the batch had.
        class_count: C, how many classes the model has.

    Raises:
        InferenceError: the output has another shape, or is not finite.
    """
    expected = (image_count, class_count)
    if probabilities.shape != expected:
        raise InferenceError(f"The model's output has the shape {probabilities.shape}, not {expected}.")
    if not np.isfinite(probabilities).all():
        raise InferenceError("The model's output is not finite.")
    return probabilities
