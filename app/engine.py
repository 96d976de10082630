"""How probabilities are computed: a batch of prepared images -> (N, C) float32.

TorchScript is the reference: frozen (batch norm folded), channels-last, no gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from app.artifact import Artifact
from app.errors import ArtifactError

Probabilities = npt.NDArray[np.float32]


class InferenceError(Exception):
    """The model did not give probabilities for an image that it should have."""


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
    """

    name = "torchscript"
    precision = "float32"

    def __init__(self, artifact: Artifact, device: torch.device) -> None:
        self.device = device
        self._class_count = len(artifact.class_names)
        module = artifact.module.to(device)
        if artifact.is_split:
            module = module.to(memory_format=torch.channels_last)
            frozen = torch.jit.freeze(module, preserved_attrs=["classify"])
            self._run = self._run_batched
            self._classify = frozen.classify
        else:
            self._run = self._run_one_by_one
            self._classify = module

    def __call__(self, images: Sequence[torch.Tensor]) -> Probabilities:
        """Computes probabilities.

        Args:
            images: each uint8 `(3, S, S)`, or `(3, H, W)` for a model with only `forward`.

        Returns:
            `(N, C)` float32.

        Raises:
            InferenceError: the output has another shape, or is not finite.
        """
        with torch.inference_mode():
            probabilities = self._run(images).to("cpu", torch.float32)
        if probabilities.shape != (len(images), self._class_count):
            expected = (len(images), self._class_count)
            raise InferenceError(f"The model's output has the shape {tuple(probabilities.shape)}, not {expected}.")
        array: Probabilities = probabilities.numpy()
        if not np.isfinite(array).all():
            raise InferenceError("The model's output is not finite.")
        return array

    def _run_batched(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        batch = torch.stack(list(images))  # (N, 3, S, S), channels-last as its parts are
        output: torch.Tensor = self._classify(batch.to(self.device, non_blocking=True))
        return output

    def _run_one_by_one(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat([self._classify(image.unsqueeze(0).to(self.device)) for image in images])
