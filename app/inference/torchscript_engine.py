"""The engine that runs an artifact's TorchScript, on a CPU or on any device of PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from app.errors import ArtifactError
from app.inference.artifact import Artifact
from app.inference.engine import (
    InferenceError,
    OutOfDeviceMemoryError,
    Pixels,
    Precision,
    Probabilities,
    Samples,
    UnavailableError,
    checked,
    has_samples,
)
from app.inference.foreign_files import not_torchscript

logger = logging.getLogger(__name__)

AUTOCAST_DTYPES: Final[dict[Precision, torch.dtype]] = {"bfloat16": torch.bfloat16, "float16": torch.float16}

Classify = Callable[[torch.Tensor], torch.Tensor]


def find_devices(wanted: str) -> tuple[str, ...]:
    """Returns the devices that the setting `device` means; see `app.inference.devices.resolve_devices`."""
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
    return tuple(map(str, devices))


def load_module(path: Path) -> torch.jit.ScriptModule:
    """Loads a TorchScript file onto the CPU, in eval mode.

    Raises:
        ArtifactError: the file is no TorchScript, or cannot be read.
    """
    try:
        module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # torch raises RuntimeError, ValueError and others, by the damage
        raise not_torchscript(path, error) from error
    return module.eval()


def frozen_classify(artifact: Artifact, device: torch.device) -> Classify:
    """Returns an artifact's `classify` on a device, frozen and channels-last.

    Raises:
        ArtifactError: the file is no TorchScript, or other than its manifest says.
    """
    path = artifact.files.model_file
    module = load_module(path)
    found = (tuple(module.class_names), module.resize_size, module.image_size)
    if artifact.geometry and found != (artifact.class_names, *artifact.geometry[:2]):
        raise ArtifactError(f"{path} has other class names or sizes than its manifest says.")
    module = module.to(device).to(memory_format=torch.channels_last)
    classify: Classify = torch.jit.freeze(module, preserved_attrs=["classify"]).classify
    return classify


class TorchScriptEngine:
    """Runs an artifact's own TorchScript.

    A model with `classify` takes batches; one with only `forward` takes whole images of any size, one by one.

    Args:
        artifact: the model.
        device: the device to compute on, as torch names it.
        precision: the precision of the computation. One lower than float32 is autocast, which keeps normalisation and
            softmax in float32: on EfficientNet-Lite0 as fast as casting all to bfloat16, and half as far from float32.
        threads: how many CPU threads compute one batch.

    Raises:
        ArtifactError: the file is no TorchScript, or other than its manifest says.
        UnavailableError: the device cannot compute in the precision.
    """

    name = "torchscript"
    warm_up_runs = 3  # it profiles two runs and compiles in the third

    def __init__(
        self, artifact: Artifact, device: str = "cpu", *, precision: Precision = "float32", threads: int = 1
    ) -> None:
        self._device = torch.device(device)
        if precision == "float16" and self._device.type == "cpu":
            raise UnavailableError("TorchScript computes in float16 on GPUs only: use --precision bfloat16.")
        self.device = device
        self.precision: Precision = precision
        self._threads = threads
        self._class_count = len(artifact.class_names)
        self._is_split = artifact.is_split
        if artifact.is_split:
            self._classify = frozen_classify(artifact, self._device)
        else:
            self._classify = load_module(artifact.files.model_file).to(self._device)

    @property
    def takes_samples(self) -> bool:
        """Whether it computes images of `Samples` too; see `Engine`."""
        return self._is_split

    def __call__(self, images: Sequence[Pixels | Samples]) -> Probabilities:
        """Computes probabilities; see `Engine`."""
        if torch.get_num_threads() != self._threads:  # torch keeps this number for each calling thread
            torch.set_num_threads(self._threads)
        dtype = AUTOCAST_DTYPES.get(self.precision)
        with torch.inference_mode(), torch.autocast(self._device.type, dtype, enabled=dtype is not None):
            # No bound method is kept for this: a cycle would keep a retired model in memory.
            output = self._run_batched(images) if self._is_split else self._run_one_by_one(images)
            probabilities: Probabilities = output.to("cpu", torch.float32).numpy()
        return checked(probabilities, image_count=len(images), class_count=self._class_count)

    def _run_batched(self, images: Sequence[Pixels | Samples]) -> torch.Tensor:
        return halving_when_out_of_memory(self._classify_batch, images)

    def _classify_batch(self, images: Sequence[Pixels | Samples]) -> torch.Tensor:
        if has_samples(images):  # which `classify` takes from 0 to 1
            images = [image.astype(np.float32) / np.float32(255) for image in images]
        batch = torch.stack([planes(image) for image in images])  # (N, 3, S, S), channels-last as its parts are
        return _one_tensor(self._classify(batch.to(self._device, non_blocking=True)), method="classify")

    def _run_one_by_one(self, images: Sequence[Pixels | Samples]) -> torch.Tensor:
        whole = (planes(image).contiguous().unsqueeze(0) for image in images)  # (1, 3, H, W)
        return torch.cat([_one_tensor(self._classify(image.to(self._device)), method="forward") for image in whole])


def planes(image: Pixels | Samples) -> torch.Tensor:
    """Returns `(H, W, 3)` as `(3, H, W)`, in the same memory."""
    return torch.from_numpy(image).permute(2, 0, 1)


def _one_tensor(output: object, *, method: str) -> torch.Tensor:
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


def halving_when_out_of_memory(
    classify: Callable[[Sequence[Pixels | Samples]], torch.Tensor], images: Sequence[Pixels | Samples]
) -> torch.Tensor:
    """Classifies a batch, in halves if it does not fit into the GPU's memory.

    Args:
        classify: takes N images to their probabilities `(N, C)`.
        images: the batch of N images.

    Raises:
        OutOfDeviceMemoryError: even one image does not fit.
    """
    try:
        return classify(images)
    except torch.OutOfMemoryError as error:
        if len(images) == 1:
            raise OutOfDeviceMemoryError(str(error)) from error
    # Outside the handler, whose traceback keeps the tensors of the failed attempt alive.
    torch.cuda.empty_cache()
    logger.warning("The GPU's memory is too small for a batch of %d; it is computed in halves.", len(images))
    middle = len(images) // 2
    halves = (images[:middle], images[middle:])
    return torch.cat([halving_when_out_of_memory(classify, half) for half in halves])
