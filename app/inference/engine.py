"""How probabilities are computed: a batch of prepared images -> (N, C) float32.

TorchScript is the reference: frozen (batch norm folded), channels-last, no gradients. `engine_choice` looks for a
faster twin.
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
    """The engine cannot be used here; the sentence says why."""


class InferenceError(Exception):
    """The model did not give probabilities for an image that it should have."""


class Engine(Protocol):
    """Computes probabilities; called by several streams at once."""

    @property
    def name(self) -> str:
        """Which library computes."""

    @property
    def precision(self) -> Precision:
        """Of weights and activations; what goes in and comes out is the same for all."""

    @property
    def device(self) -> str:
        """Where it computes: `cpu`, `cuda:0`, `cuda:0,cuda:1`, ..."""

    @property
    def warm_up_runs(self) -> int:
        """How many batches of a size it computes before it is at its speed."""

    def __call__(self, images: Sequence[torch.Tensor]) -> Probabilities:
        """Computes probabilities.

        Args:
            images: each uint8 `(3, S, S)`, or `(3, H, W)` for a model with only `forward`.

        Returns:
            `(N, C)` float32.

        Raises:
            InferenceError: the output has another shape, or is not finite.
        """


def checked(probabilities: Probabilities, *, image_count: int, class_count: int) -> Probabilities:
    """Returns what an engine computed, if it can be probabilities.

    Raises:
        InferenceError: the output has another shape, or is not finite.
    """
    expected = (image_count, class_count)
    if probabilities.shape != expected:
        raise InferenceError(f"The model's output has the shape {probabilities.shape}, not {expected}.")
    if not np.isfinite(probabilities).all():
        raise InferenceError("The model's output is not finite.")
    return probabilities


def resolve_devices(wanted: str) -> tuple[torch.device, ...]:
    """Returns the devices for `auto`, `cpu`, `mps`, `cuda` (all GPUs), or some of `cuda:N`, separated by commas.

    Raises:
        ArtifactError: the machine has no such device.
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
