"""The engine that runs an artifact's own TorchScript, on a CPU or on any device of PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import torch

from app.inference.artifact import Artifact
from app.inference.engine import Precision, Probabilities, UnavailableError, checked, one_tensor

logger = logging.getLogger(__name__)

AUTOCAST_DTYPES: Final[dict[Precision, torch.dtype]] = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def frozen_classify(artifact: Artifact, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns an artifact's `classify` on a device, frozen and channels-last."""
    module = artifact.module.to(device).to(memory_format=torch.channels_last)
    classify: Callable[[torch.Tensor], torch.Tensor] = torch.jit.freeze(module, preserved_attrs=["classify"]).classify
    return classify


class TorchScriptEngine:
    """Runs an artifact's own TorchScript.

    A model with `classify` takes batches of `uint8 (3, S, S)`; one with only `forward` takes whole images of any size,
    one by one.

    Args:
        artifact: the model.
        device: the device to compute on.
        precision: the precision of the computation. One lower than float32 is autocast, which keeps normalisation and
            softmax in float32: on EfficientNet-Lite0 as fast as casting all to bfloat16, and half as far from float32.
        threads: how many CPU threads compute one batch.

    Raises:
        UnavailableError: the device cannot compute in the precision.
    """

    name = "torchscript"
    warm_up_runs = 3  # it profiles two runs and compiles in the third

    def __init__(
        self, artifact: Artifact, device: torch.device, *, precision: Precision = "float32", threads: int = 1
    ) -> None:
        if precision == "float16" and device.type == "cpu":
            raise UnavailableError("TorchScript computes in float16 on GPUs only: use --precision bfloat16.")
        self.device = str(device)
        self.precision: Precision = precision
        self._device = device
        self._threads = threads
        self._class_count = len(artifact.class_names)
        if artifact.is_split:
            self._classify = frozen_classify(artifact, device)
        else:
            self._classify = artifact.module.to(device)
        self._is_split = artifact.is_split

    def __call__(self, images: Sequence[torch.Tensor]) -> Probabilities:
        """Computes probabilities; see `Engine`."""
        if torch.get_num_threads() != self._threads:  # torch keeps this number for each calling thread
            torch.set_num_threads(self._threads)
        dtype = AUTOCAST_DTYPES.get(self.precision)
        with torch.inference_mode(), torch.autocast(self._device.type, dtype, enabled=dtype is not None):
            # No bound method is kept for this: a cycle would keep a retired model in memory.
            output = self._run_batched(images) if self._is_split else self._run_one_by_one(images)
            probabilities: Probabilities = output.to("cpu", torch.float32).numpy()
        return checked(probabilities, image_count=len(images), class_count=self._class_count)

    def _run_batched(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        return halving_when_out_of_memory(self._classify_batch, images)

    def _classify_batch(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        batch = torch.stack(list(images))  # (N, 3, S, S), channels-last as its parts are
        return one_tensor(self._classify(batch.to(self._device, non_blocking=True)), method="classify")

    def _run_one_by_one(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        outputs = (self._classify(image.unsqueeze(0).to(self._device)) for image in images)
        return torch.cat([one_tensor(output, method="forward") for output in outputs])


def halving_when_out_of_memory(
    classify: Callable[[Sequence[torch.Tensor]], torch.Tensor], images: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Classifies a batch, in halves if it does not fit into the GPU's memory.

    Args:
        classify: takes N images to their probabilities `(N, C)`.
        images: the batch of N images.

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
