"""Reads and writes the bodies of Open Inference Protocol V2, in JSON and with binary tensors. It knows no HTTP.

JSON, or JSON and raw tensors behind it -> checked -> one input tensor, and how the one output is wanted
answers of images -> one output tensor -> JSON, or JSON and the raw tensor behind it
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from app.errors import InvalidRequestError
from app.protocols.json_bodies import JsonBody, written

OUTPUT_NAME: Final = "probabilities"
INPUT_NAME: Final = "pixels"

_MAX_DIMENSIONS: Final = 4
_MAX_DIMENSION: Final = 2**31 - 1
_DECIMALS: Final = 7
_SHARED_MEMORY: Final = "shared_memory_region"


class InputTensor(NamedTuple):
    """The one input of a request.

    Attributes:
        name: its name, which the client chooses.
        datatype: `BYTES`, `UINT8`, `FP32` or any other.
        shape: its dimensions, each at least 1.
        raw: its bytes, if it came in binary; else None.
        data: its values, flat or nested, if they came in JSON; else None.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: memoryview | None
    data: list[Any] | None


class WantedOutput(NamedTuple):
    """How a client wants the one output.

    Attributes:
        name: the name that it is to have.
        classes: how many of the most probable classes, as texts; 0 for all probabilities as numbers.
        is_binary: whether it comes behind the JSON instead of in it.
    """

    name: str = OUTPUT_NAME
    classes: int = 0
    is_binary: bool = False


class InferRequest(NamedTuple):
    """A request for inference.

    Attributes:
        request_id: the client's own id, which the answer repeats; None without one.
        tensor: the input.
        output: how the output is wanted.
        timeout_s: seconds that the client gives it; infinite if it does not say.
    """

    request_id: str | None
    tensor: InputTensor
    output: WantedOutput
    timeout_s: float


def one_file(body: bytes | bytearray) -> InferRequest:
    """Returns the request that a body is which has no JSON at all: one encoded file, and a binary answer."""
    raw = len(body).to_bytes(4, "little") + body
    tensor = InputTensor(INPUT_NAME, "BYTES", (1,), memoryview(raw), None)
    return InferRequest(None, tensor, WantedOutput(is_binary=True), math.inf)


def read_request(header: Any, binary: memoryview) -> InferRequest:
    """Returns the request that a body means.

    Args:
        header: its JSON, parsed.
        binary: the bytes behind the JSON.

    Raises:
        InvalidRequestError: it is not what the protocol says, or wants something that there is not.
    """
    if not isinstance(header, dict):
        raise InvalidRequestError("The request must be a JSON object.")
    request_id = header.get("id")
    if not isinstance(request_id, str | None):
        raise InvalidRequestError("`id` must be a text.")
    parameters = _parameters(header, "The request")
    inputs = header.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        count = len(inputs) if isinstance(inputs, list) else 0
        raise InvalidRequestError(f"`inputs` must be a list with one tensor, the images; it has {count}.")
    tensor = _input(inputs[0], binary)
    return InferRequest(request_id, tensor, _output(header.get("outputs"), parameters), _timeout_s(parameters))


def _input(given: JsonBody, binary: memoryview) -> InputTensor:
    name, datatype, shape, data = given.get("name"), given.get("datatype"), given.get("shape"), given.get("data")
    if not isinstance(name, str) or not isinstance(datatype, str):
        raise InvalidRequestError("An input has a `name` and a `datatype`, both texts.")
    dimensions = _shape(shape, name)
    parameters = _parameters(given, f"Input {name!r}")
    if _SHARED_MEMORY in parameters:
        raise InvalidRequestError("Shared memory is not supported: send the tensor in the request.")
    size = parameters.get("binary_data_size")
    if size is None:
        if len(binary):
            raise InvalidRequestError(f"{len(binary):,} bytes behind the JSON belong to no input.")
        if not isinstance(data, list):
            raise InvalidRequestError(f"Input {name!r} has neither `data`, a list, nor `binary_data_size`.")
        return InputTensor(name, datatype, dimensions, None, data)
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise InvalidRequestError("`binary_data_size` must be a whole number of bytes.")
    if data is not None:
        raise InvalidRequestError(f"Input {name!r} has both `data` and `binary_data_size`.")
    if size != len(binary):
        raise InvalidRequestError(f"`binary_data_size` is {size:,}, and {len(binary):,} bytes are behind the JSON.")
    return InputTensor(name, datatype, dimensions, binary, None)


def _shape(shape: Any, name: str) -> tuple[int, ...]:
    if not isinstance(shape, list) or not 1 <= len(shape) <= _MAX_DIMENSIONS:
        raise InvalidRequestError(f"The `shape` of input {name!r} must be a list of 1 to {_MAX_DIMENSIONS} numbers.")
    if any(isinstance(each, bool) or not isinstance(each, int) or not 1 <= each <= _MAX_DIMENSION for each in shape):
        raise InvalidRequestError(f"The dimensions of input {name!r} must be whole numbers from 1 to {_MAX_DIMENSION}.")
    return tuple(shape)


def _output(outputs: Any, of_request: JsonBody) -> WantedOutput:
    is_binary = _flag(of_request, "binary_data_output", otherwise=False)
    if outputs is None or outputs == []:
        return WantedOutput(is_binary=is_binary)
    if not isinstance(outputs, list) or len(outputs) != 1 or not isinstance(outputs[0], dict):
        raise InvalidRequestError("`outputs` must be a list with one tensor: there is one output, the probabilities.")
    name = outputs[0].get("name")
    if not isinstance(name, str):
        raise InvalidRequestError("An output has a `name`, a text.")
    parameters = _parameters(outputs[0], f"Output {name!r}")
    if _SHARED_MEMORY in parameters:
        raise InvalidRequestError("Shared memory is not supported: the output comes with the answer.")
    classes = parameters.get("classification", 0)
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 0:
        raise InvalidRequestError("`classification` must be a whole number of classes.")
    return WantedOutput(name, classes, _flag(parameters, "binary_data", otherwise=is_binary))


def _timeout_s(parameters: JsonBody) -> float:
    timeout = parameters.get("timeout", 0)
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
        raise InvalidRequestError("`timeout` must be a whole number of microseconds.")
    return timeout / 1e6 if 0 < timeout < 10**15 else math.inf  # 0 is Triton's default: no timeout


def _flag(parameters: JsonBody, name: str, *, otherwise: bool) -> bool:
    value = parameters.get(name, otherwise)
    if not isinstance(value, bool):
        raise InvalidRequestError(f"`{name}` must be true or false.")
    return value


def _parameters(given: JsonBody, whose: str) -> JsonBody:
    parameters = given.get("parameters")
    if not isinstance(parameters, dict | None):
        raise InvalidRequestError(f"{whose} has `parameters` that are no JSON object.")
    return parameters or {}


def write_probabilities(
    request: InferRequest, model: str, version: str, rows: Sequence[npt.NDArray[np.float32]]
) -> tuple[bytes, bytes]:
    """Returns the answer with all probabilities.

    Args:
        request: the request.
        model: the model's name.
        version: the model's version.
        rows: the probabilities of each image, float32 `(C,)`.

    Returns:
        the JSON, and the raw output behind it, which is empty unless the client wants it so.
    """
    table = np.stack(rows)
    shape = list(table.shape)
    if request.output.is_binary:
        return _with_binary(request, model, version, "FP32", shape, table.astype("<f4").tobytes())
    values = table.astype(np.float64).round(_DECIMALS).ravel().tolist()
    return _written(request, model, version, {"datatype": "FP32", "shape": shape, "data": values}), b""


def write_classes(
    request: InferRequest, model: str, version: str, images: Sequence[Sequence[tuple[int, str, float]]]
) -> tuple[bytes, bytes]:
    """Returns the answer with the most probable classes as texts, `probability:id:label`.

    Args:
        request: the request.
        model: the model's name.
        version: the model's version.
        images: the classes of each image, the best first, as id, label and probability; equally many for every image.

    Returns:
        the JSON, and the raw output behind it, which is empty unless the client wants it so.
    """
    texts = [f"{probability:f}:{number}:{label}" for image in images for number, label, probability in image]
    shape = [len(images), len(images[0])]
    if not request.output.is_binary:
        return _written(request, model, version, {"datatype": "BYTES", "shape": shape, "data": texts}), b""
    encoded = [text.encode() for text in texts]
    raw = b"".join(len(each).to_bytes(4, "little") + each for each in encoded)
    return _with_binary(request, model, version, "BYTES", shape, raw)


def _with_binary(
    request: InferRequest, model: str, version: str, datatype: str, shape: list[int], raw: bytes
) -> tuple[bytes, bytes]:
    parameters = {"binary_data_size": len(raw)}
    output: JsonBody = {"datatype": datatype, "shape": shape, "parameters": parameters}
    return _written(request, model, version, output), raw


def _written(request: InferRequest, model: str, version: str, output: JsonBody) -> bytes:
    answer: JsonBody = {"model_name": model, "model_version": version}
    if request.request_id is not None:
        answer["id"] = request.request_id
    return written({**answer, "outputs": [{"name": request.output.name, **output}]})
