"""Reads the images of a request from its body as it streams, and holds it to size, pace and patience.

a compressed body -> decompressed
multipart/form-data -> its file parts
anything else       -> the body itself, whatever its declared content type
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from app.api.bodies.content_encoding import content_encoding, decoded
from app.api.bodies.forms import SINGLE_FIELDS, Part, read_form
from app.errors import (
    BodyTooLargeError,
    DeadlineExceededError,
    EmptyBodyError,
    InvalidParameterError,
    MissingFileError,
    RequestTooSlowError,
)
from app.serving.admission import HeldBytes

_PACE_WINDOW_S = 5.0
_CLOCK_TOLERANCE_S = 0.05  # the event loop's clock has whole milliseconds, and may be a little ahead


@dataclass(slots=True)
class Upload:
    """The limits of one upload.

    Attributes:
        max_body_bytes: the largest size of the body, in bytes.
        min_bytes_per_s: the least pace in every window of 5 seconds, in bytes a second; 0 for no least pace. Bytes
            that were sent before a window count nothing in it.
        patience: when the client gives up, on the clock of `time.monotonic()`; infinite if it does not say. What reads
            the body may shorten it, as some clients say it there.
        held: counts the bytes of this body towards the service's limit.
    """

    max_body_bytes: int
    min_bytes_per_s: int
    patience: float
    held: HeldBytes


async def read_image(request: Request, upload: Upload, fields: Sequence[str] = SINGLE_FIELDS) -> bytearray:
    """Reads the one image of a request: one of a form's fields, a form's only file part, or the whole body.

    Args:
        request: the request.
        upload: the limits of its upload.
        fields: the fields whose one file is the image, the most telling first; their parts are files without a file
            name too.

    Returns:
        the image's file, as it was uploaded.

    Raises:
        BodyTooLargeError: the body has more than `max_body_bytes`, as declared, as counted or as decompressed.
        UnsupportedEncodingError: the body is compressed in a way that is not decoded.
        CorruptImageError: the body is not compressed as its header says.
        OverloadedError: the bodies of all requests together have too many bytes.
        RequestTooSlowError: the body comes more slowly than `min_bytes_per_s`.
        DeadlineExceededError: the client's patience ends before the body is complete.
        EmptyBodyError: the request has no body.
        MissingFileError: the form has no file, or several and none of them in a field that says which.
    """
    parts = await _read(request, upload)
    if isinstance(parts, bytearray):
        return parts
    files = _files_of(parts, fields)
    for field_name in fields:
        named = [part for part in files if part.field_name == field_name]
        files = named or files
    if len(files) > 1:
        raise MissingFileError(
            f"The form has {len(files)} files where one is expected: send several to /predict/batch."
        )
    if not files:
        sent = ", ".join(repr(part.field_name) for part in parts) or "none"
        raise MissingFileError(f"The form has no file: send the image as the field {fields[0]!r}. Fields sent: {sent}.")
    return files[0].content


async def read_images(request: Request, upload: Upload, *, max_images: int) -> list[bytearray]:
    """Reads the images of a request: every file part of its form, in order, or the whole body as one image.

    Args:
        request: the request.
        upload: the limits of its upload.
        max_images: the largest number of images.

    Returns:
        the images' files, as they were uploaded.

    Raises:
        InvalidParameterError: the form has more than `max_images` files.
        PredictorError: whatever `read_image` raises.
    """
    parts = await _read(request, upload)
    if isinstance(parts, bytearray):
        return [parts]
    files = [part.content for part in _files_of(parts, SINGLE_FIELDS)]
    if not files:
        raise MissingFileError("The form has no files: send each image as a file in a field 'files'.")
    if len(files) > max_images:
        raise InvalidParameterError(f"The form has {len(files)} files; at most {max_images} may be sent at once.")
    return files


async def read_whole(request: Request, upload: Upload) -> bytearray:
    """Reads the whole body of a request, whatever its content type says.

    Args:
        request: the request.
        upload: the limits of its upload.

    Raises:
        PredictorError: whatever `read_image` raises about a body.
    """
    body = await _read(request, upload, forms=False)
    assert isinstance(body, bytearray)
    return body


def _files_of(parts: list[Part], fields: Sequence[str]) -> list[Part]:
    """Returns the files of a form; those that are declared as JSON only if there are no others."""
    files = [part for part in parts if part.is_file_among(fields)]
    return [part for part in files if not part.is_json] or files


def declared_bytes(request: Request) -> int:
    """Returns the size of the body in bytes as the request declares it, 0 if it declares none."""
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else 0


async def _read(request: Request, upload: Upload, *, forms: bool = True) -> list[Part] | bytearray:
    declared = declared_bytes(request)
    if declared > upload.max_body_bytes:
        raise BodyTooLargeError(f"The body has {declared:,} bytes; the limit is {upload.max_body_bytes:,}.")
    encoding = content_encoding(request)
    left_s = min(upload.patience - time.monotonic(), _PACE_WINDOW_S if upload.min_bytes_per_s else math.inf)
    try:
        async with asyncio.timeout(None if left_s == math.inf else left_s) as limit:
            chunks = _received(request, upload, limit)
            if encoding:
                chunks = decoded(chunks, encoding, _counter(upload))
            return await _parse(request, chunks) if forms else await _whole(chunks)
    except TimeoutError:
        if upload.patience - time.monotonic() < _CLOCK_TOLERANCE_S:
            raise DeadlineExceededError("The request's time ran out before its body had come.") from None
        raise RequestTooSlowError(
            f"{upload.held.count:,} bytes of the body have come, the last ones too slowly: at least "
            f"{upload.min_bytes_per_s:,} bytes a second are expected."
        ) from None


async def _parse(request: Request, chunks: AsyncIterator[bytes]) -> list[Part] | bytearray:
    content_type, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if content_type == b"multipart/form-data" and boundary:
        return await read_form(chunks, boundary)
    body = await _whole(chunks)
    if content_type == b"multipart/form-data" and body.startswith(b"--"):
        raise MissingFileError(
            "The Content-Type has no boundary. Do not set it yourself: your HTTP client does, and adds the boundary."
        )
    return body


async def _whole(chunks: AsyncIterator[bytes]) -> bytearray:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
    if not body:
        raise EmptyBodyError("The request has no body: send an image's bytes, or a form with the field 'file'.")
    return body


async def _received(request: Request, upload: Upload, limit: asyncio.Timeout) -> AsyncIterator[bytes]:
    """Yields the chunks of a body, and moves `limit` on whenever the bytes that a window demands have come."""
    loop, count = asyncio.get_running_loop(), _counter(upload)
    owed = window_bytes = upload.min_bytes_per_s * _PACE_WINDOW_S
    async for chunk in request.stream():
        if not chunk:  # Starlette ends every stream with an empty one
            continue
        count(len(chunk))
        owed -= len(chunk)
        if owed <= 0 < window_bytes:
            owed = window_bytes
            limit.reschedule(loop.time() + min(_PACE_WINDOW_S, upload.patience - time.monotonic()))
        yield chunk


def _counter(upload: Upload) -> Callable[[int], None]:
    """Returns what counts the bytes of one form of a body, as it came or decompressed, and holds them to the limits."""
    total = 0

    def count(more: int) -> None:
        nonlocal total
        total += more
        if total > upload.max_body_bytes:
            raise BodyTooLargeError(f"The body has more than {upload.max_body_bytes:,} bytes, which is the limit.")
        upload.held.add(more)

    return count
