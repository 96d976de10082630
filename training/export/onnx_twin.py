"""Writes `Predictor.classify` as `model.onnx`, the twin of a model for ONNX Runtime, OpenVINO and TensorRT.

Predictor -> torch.export -> model.onnx, one file -> ONNX Runtime on the golden images -> compare with the eager model

Choices, measured on EfficientNet-Lite0:
- `dynamo=True` rather than the older tracer. That one is deprecated, and its graph took 1.2 to 1.4 times as long in
  ONNX Runtime. Padding that depends on the input's size ("same" of TensorFlow) becomes constant, as S is.
- uint8 input rather than float32: a quarter of the bytes to copy, and as fast in ONNX Runtime and in OpenVINO.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from training.errors import ExportError
from training.export.predictor import Predictor

ONNX_INPUT = "images"
ONNX_OUTPUT = "probabilities"
# Other kernels add up in another order. The service allows the same deviation in float32.
MAX_ONNX_DEVIATION = 1e-3
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def missing_onnx_packages() -> list[str]:
    """Returns the names of the packages that the twin needs and that are not installed."""
    return [package for package in _PACKAGES if importlib.util.find_spec(package) is None]


def write_onnx(predictor: Predictor, path: Path) -> None:
    """Writes `Predictor.classify` as ONNX, for any number N of images.

    The input `images` is uint8 `(N, 3, S, S)`, the output `probabilities` is float32 `(N, C)`.

    Args:
        predictor: the model, on the CPU, in float32.
        path: the file to write.

    Raises:
        ExportError: the network uses an operation that cannot be exported.
    """
    size = predictor.image_size
    example = torch.zeros(2, 3, size, size, dtype=torch.uint8)  # 2, as sizes of 0 and 1 are taken for constants
    try:
        with _quiet():
            torch.onnx.export(
                _Classify(predictor).eval(),
                (example,),
                str(path),
                dynamo=True,
                input_names=[ONNX_INPUT],
                output_names=[ONNX_OUTPUT],
                dynamic_shapes={"images": {0: torch.export.Dim("N", min=1)}},
                external_data=False,  # one file, which the manifest hashes
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(
            f"The network cannot be exported to ONNX: {reason} Nothing was published. Publish it without the twin "
            "with `python -m training export RUN --no-onnx`."
        ) from error


def verify_onnx(path: Path, predictor: Predictor, images: torch.Tensor) -> float:
    """Compares the file that was written with the eager model.

    Args:
        path: the file `model.onnx`.
        predictor: the eager model.
        images: images to classify, uint8 `(N, 3, S, S)`.

    Returns:
        the largest |p_onnx - p_eager|.

    Raises:
        ExportError: the most probable class of an image differs, or a probability differs by more than
            `MAX_ONNX_DEVIATION`.
    """
    import onnxruntime

    expected = predictor.classify(images)  # (N, C)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run([ONNX_OUTPUT], {ONNX_INPUT: images.numpy()})[0])
    one = torch.from_numpy(session.run([ONNX_OUTPUT], {ONNX_INPUT: images[:1].numpy()})[0])  # N is free
    deviation = float(torch.cat([(found - expected), (one - expected[:1])]).abs().max())
    same_top1 = bool((found.argmax(dim=1) == expected.argmax(dim=1)).all())
    if not (same_top1 and deviation <= MAX_ONNX_DEVIATION):
        top1 = "" if same_top1 else ", and the most probable class is another"
        raise ExportError(
            f"The ONNX twin deviates from the eager model by {deviation:.2g} (at most {MAX_ONNX_DEVIATION:g} is "
            f"allowed){top1}. Nothing was published."
        )
    return deviation


class _Classify(nn.Module):
    """Makes `classify` the forward method, which is what exporters take."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.predictor.classify(images)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's progress, "[torch.onnx] Obtain model graph ...", out of the terminal. Errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
