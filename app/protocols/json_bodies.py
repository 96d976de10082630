"""JSON bodies: parsed within the memory that a request may take, and off the event loop where that takes long.

body -> what would its values take? -> counted with the bytes of bodies -> parsed -> objects, lists, texts, numbers
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final

from fastapi import Request
from pydantic_core import from_json, to_json

from app.api.bodies.uploads import Upload, declared_bytes, read_whole
from app.errors import BodyTooLargeError, InvalidRequestError
from app.serving.service import Service

JSON: Final = "application/json"
"""The content type of JSON."""
JsonBody = dict[str, Any]

# So many are parsed in a millisecond: the event loop does it at once. A thread would do it at a lower priority, and the
# loop would wait for it to let go of Python's lock: 100 ms at full load (benchmarks/NOTES.md).
_FEW_BYTES: Final = 1_000_000
_FEW_VALUE_BYTES: Final = 500_000
_MAX_SMALL_BYTES: Final = 10_000
_MAX_VALUE_BYTES: Final = 200_000_000
# What Python's objects take for each sign that announces one. A number takes 3 bytes in a body and 40 in memory.
_COSTS: Final = {b",": 40, b"[": 64, b"{": 240, b'"': 30}
_BLANKS: Final = b" \t\r\n"


def looks_like_json(body: bytes | bytearray) -> bool:
    """Returns whether a body begins as a JSON object, list or text does; no image does."""
    return body[:64].lstrip(_BLANKS).startswith((b"{", b"[", b'"'))


async def parse_json(body: bytes | bytearray | memoryview, upload: Upload) -> Any:
    """Parses JSON.

    Args:
        body: the JSON.
        upload: the upload that it came with, whose bytes the parsed values count with.

    Raises:
        BodyTooLargeError: its values would take too much memory.
        OverloadedError: there is no room for its values now.
        InvalidRequestError: it is not JSON.
    """
    needed = _bytes_of_values(body) if len(body) <= _FEW_BYTES else await asyncio.to_thread(_bytes_of_values, body)
    upload.held.add(needed)
    if len(body) <= _FEW_BYTES and needed <= _FEW_VALUE_BYTES:
        return parsed(body)
    return await asyncio.to_thread(parsed, body)


async def small_object_of(request: Request, service: Service) -> JsonBody:
    """Reads the JSON object of a request without images; a request without a body has an empty one.

    Args:
        request: the request.
        service: the service, whose limits of bytes and pace hold.

    Raises:
        BodyTooLargeError: the body has more bytes than any such request needs.
        InvalidRequestError: it is not a JSON object.
    """
    if not declared_bytes(request) and "transfer-encoding" not in request.headers:
        return {}
    with service.admission.hold_bytes() as held:
        upload = Upload(_MAX_SMALL_BYTES, service.settings.min_upload_bytes_per_s, math.inf, held)
        body = await read_whole(request, upload)
        return as_object(await parse_json(body, upload)) if body.strip() else {}


def as_object(value: Any) -> JsonBody:
    """Returns a parsed value that must be an object.

    Raises:
        InvalidRequestError: it is something else.
    """
    if not isinstance(value, dict):
        raise InvalidRequestError("The body must be a JSON object.")
    return value


def written(value: Any) -> bytes:
    """Returns a value as JSON."""
    return to_json(value)


def _bytes_of_values(body: bytes | bytearray | memoryview) -> int:
    text = bytes(body) if isinstance(body, memoryview) else body
    needed = sum(cost * text.count(sign) for sign, cost in _COSTS.items())
    if needed > _MAX_VALUE_BYTES:
        raise BodyTooLargeError(
            f"The values of the JSON body would take {needed / 1e6:,.0f} MB of memory; the limit is "
            f"{_MAX_VALUE_BYTES / 1e6:,.0f} MB. Send image files, or binary tensor data."
        )
    return needed


def parsed(body: bytes | bytearray | memoryview) -> Any:
    """Returns the value of a JSON body whose size is known to be bearable.

    Raises:
        InvalidRequestError: it is not JSON.
    """
    try:
        return from_json(bytes(body), allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequestError(f"The body is not valid JSON: {error}.") from error
