"""Takes the one input tensor of a request to images, by its datatype and its shape.

BYTES [N], [N, 1]           -> files, as /predict takes them
UINT8 [N, S, S, 3] or NCHW  -> pixels of the network's size, as they are
UINT8 of any other size     -> photos, which are resized and cropped
FP32 of the network's size  -> normalised input, taken back to what it was made from
anything else               -> an error that names these
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from app.api.answering import Image
from app.errors import EmptyBodyError, InvalidParameterError, InvalidRequestError, TooManyPixelsError
from app.images.limits import MAX_SIDE
from app.inference.engine import Pixels, Samples
from app.models.served_model import ServedModel
from app.protocols.base64_images import decoded_text
from app.protocols.oip.codec import InputTensor

_CHANNELS: Final = 3
_LEVEL_TOLERANCE: Final = 0.02  # of 255 levels: what float32 loses on the way is a thousandth of it
_LENGTH_BYTES: Final = 4
_TOLERANCE: Final = 0.01  # of samples in [0, 1]: what a float16 on the way may cost, and less than a wrong mean


class ImageRoom(NamedTuple):
    """What the images of one request may take.

    Attributes:
        max_images: the most images.
        max_pixels: the most pixels of an image.
    """

    max_images: int
    max_pixels: int


def images_of(tensor: InputTensor, model: ServedModel, room: ImageRoom) -> list[Image]:
    """Returns the images that a tensor holds. It may take tens of milliseconds.

    Args:
        tensor: the input of a request.
        model: the model, which says what the network's size and its normalisation are.
        room: how many images of which size may come.

    Raises:
        InvalidRequestError: the tensor has another type or shape, or its data do not fit it.
        InvalidParameterError: there are too many images.
        TooManyPixelsError: the images have too many pixels.
        EmptyBodyError: a file has no bytes.
    """
    if tensor.datatype == "BYTES":
        return [*_files(tensor, room)]
    if tensor.datatype == "UINT8":
        return [*_photos(tensor, room)]
    if tensor.datatype == "FP32":
        return [*_normalised(tensor, model, room)]
    raise InvalidRequestError(
        f"Input {tensor.name!r} has the datatype {tensor.datatype!r}: send image files as BYTES, pixels as UINT8, or "
        "normalised pixels as FP32."
    )


def _files(tensor: InputTensor, room: ImageRoom) -> list[bytes]:
    shape, count = tensor.shape, tensor.shape[0]
    if len(shape) > 2 or shape[1:] not in {(), (1,)}:
        raise InvalidRequestError(f"BYTES must have the shape [N] or [N, 1], one file each; it is {list(shape)}.")
    _check_count(count, room)
    if tensor.raw is not None:
        return _split(tensor.raw, count)
    texts = _flat(tensor, {str})
    files = []
    for place, text in enumerate(texts):
        try:
            files.append(decoded_text(text))
        except (InvalidRequestError, EmptyBodyError) as error:
            raise error if count == 1 else type(error)(f"Image {place}: {error.detail}") from error
    return files


def _split(raw: memoryview, count: int) -> list[bytes]:
    """Returns the files of a binary tensor, each of which has its length before it."""
    files, place = [], 0
    for number in range(count):
        start = place + _LENGTH_BYTES
        length = int.from_bytes(raw[place:start], "little")
        place = start + length
        if place > len(raw):
            raise InvalidRequestError(f"Image {number} has {length:,} bytes by its length, and fewer have come.")
        if not length:
            raise EmptyBodyError(f"Image {number} is empty (0 bytes).")
        files.append(bytes(raw[start:place]))
    if place != len(raw):
        raise InvalidRequestError(f"{len(raw) - place:,} bytes are left behind the {count} images.")
    return files


def _photos(tensor: InputTensor, room: ImageRoom) -> list[Pixels]:
    batch = _batch(tensor, np.dtype(np.uint8), room)
    return [np.ascontiguousarray(image) for image in batch]


def _normalised(tensor: InputTensor, model: ServedModel, room: ImageRoom) -> list[Pixels | Samples]:
    artifact = model.artifact
    preprocessing = artifact.manifest.preprocessing if artifact.manifest else None
    if preprocessing is None or len(preprocessing.mean) != _CHANNELS:
        raise InvalidRequestError("This model's normalisation is not known: send pixels as UINT8, or files as BYTES.")
    batch = _batch(tensor, np.dtype("<f4"), room)
    size = preprocessing.image_size
    if batch.shape[1:3] != (size, size):
        raise InvalidRequestError(
            f"FP32 is the normalised input of the network, {size} x {size} pixels; this has {batch.shape[2]} x "
            f"{batch.shape[1]}. Send photos as UINT8."
        )
    mean, std = (np.asarray(each, dtype=np.float32) for each in (preprocessing.mean, preprocessing.std))
    takes_samples = model.engine.takes_samples
    return [
        _denormalised(image, mean, std, takes_samples) for image in batch
    ]  # one by one: all at once would take three times that


def _denormalised(
    image: npt.NDArray[np.float32], mean: npt.NDArray[np.float32], std: npt.NDArray[np.float32], takes_samples: bool
) -> Pixels | Samples:
    """Returns what normalised input `(S, S, 3)` was made from: 8 bits a sample, if they give it; else samples."""
    samples = image * std + mean
    least, most = float(samples.min()), float(samples.max())
    if not (least >= -_TOLERANCE and most <= 1 + _TOLERANCE):  # and so not NaN
        raise InvalidRequestError(
            f"FP32 must be normalised by this model's mean and std; without them the samples are from {least:.3g} to "
            f"{most:.3g}, not from 0 to 1. Send pixels as UINT8."
        )
    levels = samples * 255
    nearest = np.rint(levels)
    if np.abs(levels - nearest).max() <= _LEVEL_TOLERANCE:  # it was made from 8 bits
        pixels: Pixels = nearest.clip(0, 255).astype(np.uint8)
        return pixels
    if not takes_samples:
        raise InvalidRequestError("This model takes 8 bits a sample, and the FP32 input was not made from them.")
    return np.ascontiguousarray(levels, dtype=np.float32)


def _batch(tensor: InputTensor, dtype: np.dtype[Any], room: ImageRoom) -> npt.NDArray[Any]:
    """Returns the values of a tensor of pixels as `(N, H, W, 3)`, whichever of its four forms it has."""
    shape = tensor.shape if len(tensor.shape) == 4 else (1, *tensor.shape)
    if len(shape) != 4 or _CHANNELS not in {shape[1], shape[3]}:
        raise InvalidRequestError(
            f"{tensor.datatype} must have the shape [N, H, W, 3] or [N, 3, H, W]; it is {list(tensor.shape)}."
        )
    is_channels_last = shape[3] == _CHANNELS
    height, width = shape[1:3] if is_channels_last else shape[2:]
    _check_count(shape[0], room)
    if height * width > room.max_pixels or max(height, width) > MAX_SIDE:
        raise TooManyPixelsError(
            f"The images have {width} x {height} pixels; the limit is {room.max_pixels:,}, and {MAX_SIDE:,} a side."
        )
    values = _raw_values(tensor, dtype) if tensor.raw is not None else _json_values(tensor, dtype)
    batch = values.reshape(shape)
    return batch if is_channels_last else batch.transpose(0, 2, 3, 1)


def _raw_values(tensor: InputTensor, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    assert tensor.raw is not None
    expected = math.prod(tensor.shape) * dtype.itemsize
    if len(tensor.raw) != expected:
        whole, came = f"{tensor.datatype} of the shape {list(tensor.shape)}", len(tensor.raw)
        raise InvalidRequestError(f"{whole} has {expected:,} bytes; {came:,} have come.")
    return np.frombuffer(tensor.raw, dtype)


def _json_values(tensor: InputTensor, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    values = _flat(tensor, {int} if dtype == np.uint8 else {int, float})
    if dtype == np.uint8 and not (min(values) >= 0 and max(values) <= 255):
        raise InvalidRequestError("UINT8 has whole numbers from 0 to 255; one of the numbers is none.")
    try:
        with np.errstate(over="ignore"):  # what does not fit is infinite, and no normalised sample
            return np.array(values, dtype)
    except OverflowError as error:
        raise InvalidRequestError("FP32 has numbers that fit into 32 bits; one of the numbers does not.") from error


def _flat(tensor: InputTensor, types: set[type]) -> list[Any]:
    """Returns the values of a JSON tensor, which came flat or nested by its shape.

    Raises:
        InvalidRequestError: they are nested otherwise, of other types, or not as many as the shape says.
    """
    values: Sequence[Any] = tensor.data or []
    expected = math.prod(tensor.shape)
    for depth in range(len(tensor.shape)):
        if not values or not isinstance(values[0], list):
            break
        is_last = depth == len(tensor.shape) - 1
        lengths = {len(each) if isinstance(each, list) else -1 for each in values}
        if is_last or len(values) != math.prod(tensor.shape[: depth + 1]) or lengths != {tensor.shape[depth + 1]}:
            raise InvalidRequestError(f"The nested data of input {tensor.name!r} do not have its shape.")
        values = list(chain.from_iterable(values))
    if len(values) != expected:
        whole, came = f"Input {tensor.name!r} of the shape {list(tensor.shape)}", len(values)
        raise InvalidRequestError(f"{whole} has {expected:,} values; {came:,} have come.")
    wrong = set(map(type, values)) - types
    if wrong:
        kinds = "numbers" if float in types else "whole numbers" if int in types else "base64 texts"
        raise InvalidRequestError(f"{tensor.datatype} data must be {kinds}.")
    return list(values)


def _check_count(count: int, room: ImageRoom) -> None:
    if count > room.max_images:
        raise InvalidParameterError(f"The request has {count} images; at most {room.max_images} may be sent at once.")
