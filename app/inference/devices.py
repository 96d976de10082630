"""Says which devices to compute on. torch is loaded only where there may be more than a CPU."""

from __future__ import annotations

import ctypes
import platform
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from app.errors import ArtifactError

CPU = ("cpu",)


def resolve_devices(wanted: str) -> tuple[str, ...]:
    """Returns the devices that the setting `device` means, each as torch names it.

    Args:
        wanted: `auto`, `cpu`, `mps`, `cuda` for all GPUs, or one or more of `cuda:N`, separated by commas.

    Raises:
        ArtifactError: the machine does not have such a device, or torch is not installed.
    """
    if wanted == "cpu":
        return CPU
    if wanted == "auto" and not (has_torch() and _may_have_accelerator()):
        return CPU
    if not has_torch():
        raise ArtifactError(f"--device {wanted} needs torch, which is not installed: {how_to_get_torch()}.")
    from app.inference.torchscript_engine import find_devices

    return find_devices(wanted)


def device_type(device: str) -> str:
    """Returns the type of a device: `cuda` for `cuda:1`."""
    return device.partition(":")[0]


def has_torch() -> bool:
    """Returns whether torch is installed. It is not loaded."""
    return find_spec("torch") is not None


def how_to_get_torch() -> str:
    """Returns what to do to have torch, as the end of a sentence."""
    if sys.version_info >= (3, 14):
        return "TorchScript ends at Python 3.13, so take that, and pip install 'image-predictor[torch]'"
    return "pip install 'image-predictor[torch]'"


def _may_have_accelerator() -> bool:
    """Returns whether there may be a GPU that torch can use: a driver of NVIDIA or AMD, or a processor of Apple."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if Path("/dev/kfd").exists():
        return True
    with suppress(OSError):
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        return True
    return False
