"""The engine that runs an artifact's ONNX twin with OpenVINO on a CPU, in float32 about twice as fast as TorchScript.

model.onnx -> read -> take channels-last input -> compile for the streams that will call it
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.inference.engine import Pixels, Precision, Probabilities, Samples, UnavailableError, checked, has_samples

if TYPE_CHECKING:
    import openvino

_PRECISION_HINTS: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_CAPABILITIES: dict[Precision, str] = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}


class OpenVINOEngine:
    """Runs an ONNX twin with OpenVINO.

    Args:
        onnx_twin: the verified file of the twin.
        class_count: C, how many classes the model has.
        precision: the precision of the computation. One lower than float32 needs a CPU with instructions for it.
        streams: how many batches are computed at once, each called from a thread of its own.
        threads: how many CPU threads compute one batch.

    Raises:
        UnavailableError: OpenVINO is not installed, cannot read the twin, or cannot use the precision on this CPU.
    """

    name = "openvino"
    device = "cpu"
    warm_up_runs = 1  # kernels are compiled when a size is first seen

    def __init__(
        self, onnx_twin: Path, *, class_count: int, precision: Precision = "float32", streams: int = 1, threads: int = 1
    ) -> None:
        self.precision: Precision = precision
        self._class_count = class_count
        ov = _import_openvino()
        core = ov.Core()
        if _CAPABILITIES[precision] not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise UnavailableError(f"This CPU has no {precision} instructions that OpenVINO uses.")
        options = {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
            "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[precision],
            # A pinned thread cannot leave a core that something else keeps busy.
            "ENABLE_CPU_PINNING": False,
        }

        def compile_for(model: openvino.Model) -> Any:
            return core.compile_model(_take_channels_last(ov, model), "CPU", options)

        try:
            model = core.read_model(onnx_twin)
            self.takes_samples = _converts_its_input(model)
            self._compiled = compile_for(model)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UnavailableError(f"OpenVINO cannot use {onnx_twin}: {reason}") from error
        self._compile_for_samples: Callable[[], Any] = lambda: compile_for(
            _without_conversion(ov, core.read_model(onnx_twin))
        )
        self._compiled_for_samples: Any = None
        self._compiling = threading.Lock()
        self._requests = threading.local()
        batch = self._compiled.input().get_partial_shape()[0]
        self._one_by_one = batch.is_static and batch.get_length() == 1

    def __call__(self, images: Sequence[Pixels | Samples]) -> Probabilities:
        """Computes probabilities; see `app.inference.engine.Engine`."""
        if has_samples(images):
            images = [image.astype(np.float32) for image in images]
            request = self._of_samples().create_infer_request()
        else:
            request = getattr(self._requests, "request", None)
            if request is None:  # one for each stream: a request computes one batch at a time
                request = self._requests.request = self._compiled.create_infer_request()
        if self._one_by_one:
            probabilities = np.concatenate([self._infer(request, image[np.newaxis]) for image in images])
        else:
            batch: Any = np.stack(images)  # (N, S, S, 3)
            probabilities = self._infer(request, batch)
        return checked(probabilities, image_count=len(images), class_count=self._class_count)

    def _of_samples(self) -> Any:
        """Returns the model compiled for float32 input. It is made when somebody needs it, as it takes memory."""
        with self._compiling:
            if self._compiled_for_samples is None:
                self._compiled_for_samples = self._compile_for_samples()
            return self._compiled_for_samples

    def _infer(self, request: Any, batch: Pixels | Samples) -> Probabilities:
        request.infer({0: batch}, share_inputs=True, share_outputs=True)
        probabilities: Probabilities = request.get_output_tensor().data.astype(np.float32)  # a copy: it is used again
        return probabilities


def _import_openvino() -> Any:
    # If `openvino_telemetry` can be imported, importing OpenVINO sends a report to its makers over the network.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise UnavailableError(f"OpenVINO cannot be imported: {error}.") from error
    return openvino


def _converts_its_input(model: openvino.Model) -> bool:
    """Returns whether a model does nothing with its uint8 input but convert it to float32."""
    return all(each.get_node().get_type_name() == "Convert" for each in model.input().get_target_inputs())


def _without_conversion(ov: Any, model: openvino.Model) -> openvino.Model:
    """Lets a model that converts its input take float32 from 0 to 255 instead."""
    old = model.get_parameters()[0]
    new = ov.opset13.parameter(old.get_partial_shape(), np.float32, name=old.get_friendly_name())
    for each in model.input().get_target_inputs():
        each.get_node().output(0).replace(new.output(0))
    model.add_parameters([new])
    model.remove_parameter(old)
    model.validate_nodes_and_infer_types()
    return model


def _take_channels_last(ov: Any, model: openvino.Model) -> openvino.Model:
    """Lets the model take `(N, S, S, 3)`, which is how pixels lie after decoding and what its kernels want."""
    from openvino.preprocess import PrePostProcessor

    processor = PrePostProcessor(model)
    processor.input().tensor().set_layout(ov.Layout("NHWC"))
    processor.input().model().set_layout(ov.Layout("NCHW"))
    return processor.build()
