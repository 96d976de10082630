"""How probabilities are computed: a batch of prepared images -> (N, C) float32.

TorchScript is the reference: frozen (batch norm folded), channels-last, no gradients. `engine_choice` looks for a
faster twin.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from app.artifact import Artifact
from app.errors import ArtifactError

logger = logging.getLogger(__name__)

Probabilities = npt.NDArray[np.float32]
Precision = Literal["float32", "bfloat16"]


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
    def device(self) -> torch.device:
        """Where it computes."""

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


def resolve_device(wanted: str) -> torch.device:
    """Returns the device for `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        ArtifactError: the machine has no such device.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ArtifactError(f"--device {wanted}: this machine has {torch.cuda.device_count()} CUDA devices.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ArtifactError("--device mps: this machine has no Apple GPU that torch can use.")
    return device


class TorchScriptEngine:
    """Runs an artifact's own TorchScript.

    A model with `classify` takes batches of `uint8 (3, S, S)`; one with only `forward` takes whole images of any size,
    one by one.

    Args:
        artifact: the model.
        device: where to compute.
        precision: bfloat16 is autocast, which keeps normalisation and softmax in float32: on EfficientNet-Lite0 as fast
            as casting all, and half as far from float32.
        threads: CPU threads that compute one batch.
    """

    name = "torchscript"

    def __init__(
        self, artifact: Artifact, device: torch.device, *, precision: Precision = "float32", threads: int = 1
    ) -> None:
        self.device = device
        self.precision: Precision = precision
        self._threads = threads
        self._class_count = len(artifact.class_names)
        module = artifact.module.to(device)
        if artifact.is_split:
            module = module.to(memory_format=torch.channels_last)
            frozen = torch.jit.freeze(module, preserved_attrs=["classify"])
            self._classify = frozen.classify
        else:
            self._classify = module
        self._is_split = artifact.is_split

    def __call__(self, images: Sequence[torch.Tensor]) -> Probabilities:
        """Computes probabilities; see `Engine`."""
        if torch.get_num_threads() != self._threads:  # of the calling thread
            torch.set_num_threads(self._threads)
        reduced = self.precision != "float32"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=reduced):
            # No bound method is kept for this: a cycle would keep a retired model in memory.
            output = self._run_batched(images) if self._is_split else self._run_one_by_one(images)
            probabilities: Probabilities = output.to("cpu", torch.float32).numpy()
        return checked(probabilities, image_count=len(images), class_count=self._class_count)

    def _run_batched(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        return halving_when_out_of_memory(self._classify_batch, images)

    def _classify_batch(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        batch = torch.stack(list(images))  # (N, 3, S, S), channels-last as its parts are
        output: torch.Tensor = self._classify(batch.to(self.device, non_blocking=True))
        return output

    def _run_one_by_one(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat([self._classify(image.unsqueeze(0).to(self.device)) for image in images])


def halving_when_out_of_memory(
    classify: Callable[[Sequence[torch.Tensor]], torch.Tensor], images: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Classifies a batch, in halves if it does not fit into the GPU's memory.

    Args:
        classify: takes a batch to `(N, C)`.
        images: the batch.

    Raises:
        torch.OutOfMemoryError: even one image does not fit.
    """
    try:
        return classify(images)
    except torch.OutOfMemoryError:
        if len(images) == 1:
            raise
    # Outside the handler, whose traceback keeps the tensors of the failed attempt alive.
    torch.cuda.empty_cache()
    logger.warning("The GPU's memory is too small for a batch of %d; it is computed in halves.", len(images))
    middle = len(images) // 2
    halves = (images[:middle], images[middle:])
    return torch.cat([halving_when_out_of_memory(classify, half) for half in halves])
