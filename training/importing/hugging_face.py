"""An image classifier in a folder of Hugging Face: config.json, preprocessor_config.json and safetensors. Offline.

folder -> the network by transformers, without code from the folder -> logits; the preprocessing -> Preprocessing
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from app.images.geometry import Fit
from app.store.manifest import Preprocessing
from training.errors import SourceError
from training.importing.preprocessing import interpolation_named

CONFIG_FILE: Final = "config.json"
_PREPROCESSOR_FILE: Final = "preprocessor_config.json"


class Logits(nn.Module):
    """Gives the logits of a classifier of transformers as its only output.

    Args:
        classifier: a model for image classification.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Takes `(N, 3, S, S)` to `(N, C)`."""
        logits: torch.Tensor = self.classifier(pixel_values=x, return_dict=True).logits
        return logits


def read_folder(folder: Path) -> tuple[nn.Module, Preprocessing | None, list[str]]:
    """Reads a classifier.

    Args:
        folder: the folder of the model.

    Returns:
        the network, its preprocessing (None if the folder has none), and the names of its classes.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        SourceError: the folder is not an image classifier whose weights can be read.
    """
    import transformers

    config = _json(folder / CONFIG_FILE)
    if not any("ForImageClassification" in name for name in config.get("architectures") or []):
        raise SourceError(f"{folder / CONFIG_FILE} is not of an image classifier: {config.get('architectures')}.")
    transformers.utils.logging.set_verbosity(logging.ERROR)
    try:
        classifier, report = transformers.AutoModelForImageClassification.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True,
            attn_implementation="eager", dtype=torch.float32,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SourceError(f"{folder} cannot be read by transformers: {reason}") from error
    if missing := sorted(report["missing_keys"]):
        raise SourceError(f"{folder} has no weights for {', '.join(missing[:5])}: it was never trained to classify.")
    if classifier.config.problem_type not in {None, "single_label_classification"}:
        raise SourceError(f"{folder} is for {classifier.config.problem_type}: only one class an image is served here.")
    names = classifier.config.id2label
    labels = [str(names[number]) for number in range(len(names))]
    return Logits(classifier.eval()), _preprocessing(folder / _PREPROCESSOR_FILE), labels


def _preprocessing(path: Path) -> Preprocessing | None:
    """Reads what an image processor does.

    Source: https://huggingface.co/docs/transformers/main_classes/image_processor, and for `crop_pct` ConvNeXT's.
    """
    if not path.exists():
        return None
    own = _json(path)
    try:
        image_size, resize_size, fit = _sizes(own, path)
        factor = own.get("rescale_factor", 1 / 255) if own.get("do_rescale", True) else 1
        if abs(factor * 255 - 1) > 1e-6:
            raise SourceError(f"{path} scales samples by {factor}, and not by 1/255.")
        normalised = own.get("do_normalize", True)
        return Preprocessing(
            image_size=image_size,
            resize_size=resize_size,
            mean=own["image_mean"] if normalised else (0.0,) * 3,
            std=own["image_std"] if normalised else (1.0,) * 3,
            interpolation=interpolation_named(own.get("resample", 2)),
            fit=fit,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path} is not the configuration of an image processor: {error!r}.") from error


def _sizes(own: dict[str, Any], path: Path) -> tuple[int, int, Fit]:
    """Returns the size of the image that the network sees, the size before the crop, and how they are reached."""
    if not own.get("do_resize", True):
        raise SourceError(f"{path} does not resize its images, as is done here.")
    size = own.get("size", {"height": 224, "width": 224})
    size = {"height": size, "width": size} if isinstance(size, int) else size
    side = _side(size, path)
    if "ConvNext" in str(own.get("image_processor_type") or own.get("feature_extractor_type")):
        if side >= 384:  # which resizes each side by itself
            return side, side, "squash"
        return side, int(side / (own.get("crop_pct") or 224 / 256)), "crop"
    if not own.get("do_center_crop"):
        return side, side, "squash"
    if "shortest_edge" not in size:
        raise SourceError(f"{path} resizes each side by itself and then cuts out the centre: not computed here.")
    return _side(own.get("crop_size", size), path), side, "crop"


def _side(size: Any, path: Path) -> int:
    """Returns the side of a square."""
    if isinstance(size, int):
        return size
    sides = {int(size[name]) for name in ("height", "width", "shortest_edge") if name in size}
    if len(sides) != 1:
        raise SourceError(f"{path} makes images of {size}; only squares are computed here.")
    return sides.pop()


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise SourceError(f"{path} is not JSON.") from error
    if not isinstance(found, dict):
        raise SourceError(f"{path} is not an object.")
    return found
