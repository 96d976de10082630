"""What an engine is: it computes the probabilities of a batch of prepared images, (N, C) float32.

TorchScript is the reference: frozen (batch norm folded), channels-last, no gradients. engine_choice.py looks for an
engine that is faster.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from app.errors import ArtifactError

logger = logging.getLogger(__name__)

Probabilities = npt.NDArray[np.float32]
Precision = Literal["float32", "bfloat16", "float16"]


class UnavailableError(Exception):
    """The engine cannot be used here. The sentence says why."""


class InferenceError(Exception):
    """The model did not give probabilities for an image that it should have."""


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

    def __call__(self, images: Sequence[torch.Tensor]) -> Probabilities:
        """Computes probabilities.

        Args:
            images: N images, each uint8 `(3, S, S)`, or `(3, H, W)` for a model with only `forward`.

        Returns:
            the probabilities, float32 `(N, C)`.

        Raises:
            InferenceError: the output has another shape, or is not finite.
        """


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


def one_tensor(output: object, *, method: str) -> torch.Tensor:
    """Returns what a model's method gave, if that is a tensor.

    Args:
        output: what the method returned.
        method: the method's name, `forward` or `classify`.

    Raises:
        InferenceError: it is something else, such as a tuple.
    """
    if not isinstance(output, torch.Tensor):
        kind = next((kind.__name__ for kind in (tuple, list, dict) if isinstance(output, kind)), type(output).__name__)
        shape = "(1, C)" if method == "forward" else "(N, C)"
        raise InferenceError(f"{method} must return one tensor of probabilities, {shape}; it returned a {kind}.")
    return output


def resolve_devices(wanted: str) -> tuple[torch.device, ...]:
    """Returns the devices that the setting `device` means.

    Args:
        wanted: `auto`, `cpu`, `mps`, `cuda` for all GPUs, or one or more of `cuda:N`, separated by commas.

    Raises:
        ArtifactError: the machine does not have such a device.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device_count = torch.cuda.device_count()
    if wanted == "cuda":
        wanted = ",".join(f"cuda:{number}" for number in range(device_count)) or "cuda:0"
    devices = tuple(torch.device(each) for each in wanted.split(","))
    if any(device.type == "cuda" and (device.index or 0) >= device_count for device in devices):
        raise ArtifactError(f"--device {wanted}: this machine has {device_count} CUDA devices.")
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise ArtifactError("--device mps: this machine has no Apple GPU that torch can use.")
    return devices
