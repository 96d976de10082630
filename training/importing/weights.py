"""Reads the tensors of a file. Nothing that a file says is executed: pickles are loaded with `weights_only` alone.

.safetensors, .pth, .pt, .ckpt, .bin -> the dictionary of tensors inside -> without the prefixes of wrappers
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import torch

from training.errors import SourceError

Tensors = dict[str, torch.Tensor]

# Where trainers put the tensors in a checkpoint, the averaged ones first.
_INSIDE: Final = ("state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "weights")
# What wrappers put in front of each name: DataParallel, torch.compile, Lightning modules, and so on.
_PREFIXES: Final = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder.")
_ELSEWHERE: Final = {
    "ultralytics": "with ultralytics: YOLO(file).export(format='onnx'), and import the ONNX file",
    "fastai": "with fastai: torch.save(learn.model.state_dict(), 'weights.pth'), and import that with --architecture",
    "fastcore": "with fastai: torch.save(learn.model.state_dict(), 'weights.pth'), and import that with --architecture",
    "lightning": "torch.save(module.model.state_dict(), 'weights.pth'), and import that with --architecture",
    "pytorch_lightning": "torch.save(module.model.state_dict(), 'weights.pth'), and import that with --architecture",
}
_USUALLY: Final = "load it where it was made, torch.save(model.state_dict(), 'weights.pth'), and import that"


def read_tensors(path: Path) -> Tensors:
    """Returns the tensors of a file by name.

    Raises:
        SourceError: the file cannot be read, or holds something else than tensors.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise SourceError(f"{path} cannot be read as safetensors: {error}.") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # UnpicklingError, RuntimeError and others, by the content
        raise SourceError(_refusal(path, str(error))) from error
    tensors = _tensors_in(content)
    if not tensors:
        raise SourceError(f"{path} holds no tensors by name, but a {type(content).__name__}: {_USUALLY}.")
    return tensors


def fitted(tensors: Tensors, names: Iterable[str]) -> Tensors:
    """Returns tensors without the prefix that wrappers have put in front of a network's names.

    Args:
        tensors: the tensors of a file.
        names: the names of the network's tensors.
    """
    wanted = set(names)

    def hits(found: Mapping[str, torch.Tensor]) -> int:
        return len(wanted & found.keys())

    while True:
        shorter = [
            {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            for prefix in _PREFIXES
        ]
        best = max(shorter, key=lambda each: (hits(each), len(each)))
        if not best or hits(best) < hits(tensors) or (hits(best) == 0 and len(best) < len(tensors) / 2):
            return tensors
        if hits(best) == hits(tensors) and hits(tensors):
            return tensors
        tensors = best


def _tensors_in(content: object) -> Tensors:
    if not isinstance(content, Mapping):
        return {}
    found = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if found:
        return found
    return next((inside for key in _INSIDE if (inside := _tensors_in(content.get(key)))), {})


def _refusal(path: Path, reason: str) -> str:
    if "torch.jit" in reason or "TorchScript" in reason:
        return f"{path} is TorchScript, which is served as it is: image-predictor serve --model {path}"
    for package, how in _ELSEWHERE.items():
        if package in reason:
            return f"{path} holds objects of {package}, which are never loaded here. Export it {how}."
    first = reason.strip().splitlines()[0] if reason.strip() else "it is damaged"
    if "weights_only" in reason or "Unsupported" in reason or "GLOBAL" in reason:
        return f"{path} holds more than tensors, and nothing of it is executed here: {_USUALLY}."
    return f"{path} cannot be read as weights: {first}"
