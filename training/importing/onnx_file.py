"""An ONNX classifier: its preprocessing and the softmax that it lacks are put around it, and it is published as a twin.

model.onnx -> what its input and output are -> uint8 images -> normalise -> the classifier -> softmax -> probabilities
-> ONNX Runtime: the answers of the file as it came, on images prepared by NumPy -> compare -> publish

There is no TorchScript of it: OpenVINO alone serves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from app.store.manifest import Preprocessing
from training.errors import SourceError
from training.export.onnx_twin import MAX_ONNX_DEVIATION, ONNX_INPUT, ONNX_OUTPUT

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Classifier:
    """What was found out about an ONNX classifier.

    Attributes:
        model: the file's content.
        input_name: the name of its only input.
        channels_last: whether it takes `(N, S, S, 3)`, and not `(N, 3, S, S)`.
        takes_bytes: whether it takes uint8, and normalises by itself.
        image_size: the side S that it takes, in pixels; None if any is taken.
        output_name: the name of its first output, `(N, C)`.
    """

    model: onnx.ModelProto
    input_name: str
    channels_last: bool
    takes_bytes: bool
    image_size: int | None
    output_name: str


def read_classifier(path: Path) -> Classifier:
    """Reads an ONNX file.

    Raises:
        SourceError: it is damaged, or takes or gives something else than images and a number for each class.
    """
    import onnx

    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # of many kinds, by the damage
        raise SourceError(f"{path} cannot be read as ONNX: {str(error).strip().splitlines()[0]}") from error
    weights = {initializer.name for initializer in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    if len(inputs) != 1:
        raise SourceError(f"{path} takes {len(inputs)} inputs, and not one batch of images.")
    tensor = inputs[0].type.tensor_type
    shape = [dimension.dim_value or None for dimension in tensor.shape.dim]
    element = tensor.elem_type
    if element not in {onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8}:
        raise SourceError(f"{path} takes {onnx.TensorProto.DataType.Name(element)}, and neither float32 nor uint8.")
    if len(shape) != 4 or (3 not in {shape[1], shape[3]}):
        raise SourceError(f"{path} takes the shape {shape}, and not RGB images (N, 3, S, S) or (N, S, S, 3).")
    channels_last = shape[1] != 3
    sides = shape[1:3] if channels_last else shape[2:4]
    if sides[0] != sides[1]:
        raise SourceError(f"{path} takes images of {sides[1]} x {sides[0]}; only squares are computed here.")
    is_bytes = element == onnx.TensorProto.UINT8
    return Classifier(model, inputs[0].name, channels_last, is_bytes, sides[0], model.graph.output[0].name)


def answers(
    classifier: Classifier, images: npt.NDArray[np.uint8], preprocessing: Preprocessing
) -> tuple[npt.NDArray[np.float32], bool]:
    """Returns what the file answers as it came, and whether that needed a softmax.

    Args:
        classifier: the file.
        images: images as the network sees them, `(N, S, S, 3)`.
        preprocessing: the mean and the standard deviation of its samples.

    Returns:
        the probabilities `(N, C)`, and whether the file gives logits.

    Raises:
        SourceError: it fails, or does not give a number for each class.
    """
    given: npt.NDArray[Any] = images
    if not classifier.takes_bytes:
        mean, std = (np.array(values, dtype=np.float32) for values in (preprocessing.mean, preprocessing.std))
        given = (images.astype(np.float32) / np.float32(255) - mean) / std
    if not classifier.channels_last:
        given = given.transpose(0, 3, 1, 2)
    run = _runner(classifier.model, classifier.input_name)
    rows = [run(image[None]) for image in given]
    if any(row.ndim != 2 or row.shape[0] != 1 for row in rows):
        raise SourceError(f"The model gives the shape {rows[0].shape} for an image, and not (1, classes).")
    found = np.concatenate(rows).astype(np.float32)
    if not np.isfinite(found).all():
        raise SourceError("The model gives NaN for a photo.")
    if found.min() >= 0 and np.allclose(found.sum(axis=1), 1, atol=1e-3):
        return found, False
    powers = np.exp(found - found.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32), True


def twin_of(classifier: Classifier, preprocessing: Preprocessing, *, gives_logits: bool) -> onnx.ModelProto:
    """Returns the model that takes `images`, uint8 `(N, 3, S, S)`, and gives `probabilities` `(N, C)`.

    Args:
        classifier: the file.
        preprocessing: the mean and the standard deviation of its samples, and the size of its images.
        gives_logits: whether a softmax is to follow.
    """
    import onnx
    from onnx import TensorProto, compose, helper, numpy_helper

    size = preprocessing.image_size
    opsets = [each for each in classifier.model.opset_import if each.domain in {"", "ai.onnx"}]
    batch = _batch_of(classifier)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    last = ONNX_INPUT

    def step(operator: str, *operands: npt.NDArray[np.float32], **attributes: Any) -> None:
        nonlocal last
        names = []
        for operand in operands:
            names.append(f"constant_{len(constants)}")
            constants.append(numpy_helper.from_array(operand, names[-1]))
        nodes.append(helper.make_node(operator, [last, *names], [f"step_{len(nodes)}"], **attributes))
        last = f"step_{len(nodes) - 1}"

    if not classifier.takes_bytes:
        step("Cast", to=TensorProto.FLOAT)
        step("Div", np.array(255, dtype=np.float32))
        step("Sub", np.array(preprocessing.mean, dtype=np.float32).reshape(1, 3, 1, 1))
        step("Div", np.array(preprocessing.std, dtype=np.float32).reshape(1, 3, 1, 1))
    if classifier.channels_last:
        step("Transpose", perm=[0, 2, 3, 1])
    elif classifier.takes_bytes:
        step("Identity")
    shape = [batch, size, size, 3] if classifier.channels_last else [batch, 3, size, size]
    element = TensorProto.UINT8 if classifier.takes_bytes else TensorProto.FLOAT
    before = helper.make_model(
        helper.make_graph(
            nodes, "prepare", [helper.make_tensor_value_info(ONNX_INPUT, TensorProto.UINT8, [batch, 3, size, size])],
            [helper.make_tensor_value_info(last, element, shape)], constants,
        ),
        opset_imports=opsets, ir_version=classifier.model.ir_version,
    )  # fmt: skip
    merged = compose.merge_models(
        before, compose.add_prefix(classifier.model, "classifier_"),
        io_map=[(last, f"classifier_{classifier.input_name}")], outputs=[f"classifier_{classifier.output_name}"],
    )  # fmt: skip
    output = f"classifier_{classifier.output_name}"
    merged.graph.node.append(
        helper.make_node("Softmax", [output], [ONNX_OUTPUT], axis=1)
        if gives_logits
        else helper.make_node("Identity", [output], [ONNX_OUTPUT])
    )
    del merged.graph.output[:]
    merged.graph.output.append(helper.make_tensor_value_info(ONNX_OUTPUT, TensorProto.FLOAT, [batch, None]))
    onnx.checker.check_model(merged)
    return merged


def deviation_of(
    twin: onnx.ModelProto, images: npt.NDArray[np.uint8], expected: npt.NDArray[np.float32], *, one_by_one: bool
) -> float:
    """Returns the largest |p_twin - p_file|.

    Args:
        twin: the model of `twin_of`.
        images: images as the network sees them, `(N, S, S, 3)`.
        expected: the answers of the file as it came, `(N, C)`.
        one_by_one: whether the file takes a single image at a time.

    Raises:
        SourceError: a probability differs by more than what is put around the file explains, or a batch is answered
            otherwise than its images are alone.
    """
    batches = [images[index : index + 1] for index in range(len(images))] if one_by_one else [images, images[:1]]
    wanted = expected if one_by_one else np.concatenate([expected, expected[:1]])
    run = _runner(twin, ONNX_INPUT)
    found = np.concatenate([run(batch.transpose(0, 3, 1, 2)) for batch in batches])
    deviation = float(np.abs(found - wanted).max())
    if not deviation <= MAX_ONNX_DEVIATION:
        raise SourceError(
            f"The model with its preprocessing answers otherwise by {deviation:.2g}. Nothing was published."
        )
    return deviation


def takes_one_at_a_time(classifier: Classifier) -> bool:
    """Returns whether the file takes a batch of one image only."""
    return _batch_of(classifier) == 1


def _batch_of(classifier: Classifier) -> int | str:
    """Returns the size of the batch that the file takes, or a name if it is free.

    Raises:
        SourceError: it is fixed, and not 1.
    """
    (taken,) = (each for each in classifier.model.graph.input if each.name == classifier.input_name)
    fixed = taken.type.tensor_type.shape.dim[0].dim_value
    if fixed > 1:
        raise SourceError(
            f"The model takes batches of {fixed} images only: export it with a free batch size, or with 1."
        )
    return fixed or "N"


def _runner(model: onnx.ModelProto, input_name: str) -> Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]:
    """Returns a function that computes the model's first output for one batch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with _failure_told():
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(batch: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        with _failure_told():
            found: npt.NDArray[np.float32] = session.run(None, {input_name: np.ascontiguousarray(batch)})[0]
        return found

    return run


@contextmanager
def _failure_told() -> Iterator[None]:
    """Makes a sentence of whatever onnxruntime raises; its errors share no base class."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise SourceError(f"The model fails on a photo: {reason}") from error
