"""Images as base64 texts in JSON, in every form in which clients of these protocols write them.

text -> without `data:...;base64,` -> without blanks -> strictly decoded -> the image's file
"""

from __future__ import annotations

import asyncio
import binascii
import re
from collections.abc import Sequence
from typing import Any, Final

from app.api.bodies.uploads import Upload
from app.errors import EmptyBodyError, InvalidParameterError, InvalidRequestError

INSTANCE_FIELDS: Final = ("b64", "data", "content", "image_bytes", "image", "body")
"""The fields of an instance whose value is the image."""
_DATA_URL: Final = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_BLANKS: Final = b" \t\r\n\f\v"
_FEW_CHARACTERS: Final = 1_000_000  # so many are decoded in about a millisecond


def decoded_text(text: str) -> bytes:
    """Returns the bytes of a base64 text. Blanks in it mean nothing, as the command `base64` breaks lines.

    Args:
        text: the base64, or a data URL of it.

    Raises:
        EmptyBodyError: there is nothing in it.
        InvalidRequestError: it is not base64, or an address of the web, which is never fetched.
    """
    if text[:8].lower().startswith(("http://", "https://")):
        raise InvalidRequestError("An image is never fetched from an address: send its bytes in base64.")
    prefix = _DATA_URL.match(text)
    try:
        plain = text[prefix.end() if prefix else 0 :].encode("ascii").translate(None, _BLANKS)
        content = binascii.a2b_base64(plain, strict_mode=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise InvalidRequestError("The image's text is not valid base64.") from error
    if not content:
        raise EmptyBodyError("The image is empty (0 bytes).")
    return content


def instance_text(instance: Any) -> str:
    """Returns the base64 text of one instance.

    Args:
        instance: the text itself, or an object with the text, or `{"b64": text}`, in one of `INSTANCE_FIELDS`.

    Raises:
        InvalidRequestError: it is neither.
    """
    value = instance
    for _ in range(2):
        if not isinstance(value, dict):
            break
        fields = [field for field in INSTANCE_FIELDS if field in value]
        if len(fields) != 1:
            found = " and ".join(fields) or ", ".join(map(repr, list(value)[:5])) or "no fields"
            raise InvalidRequestError(
                f"An instance has its image in one of {', '.join(INSTANCE_FIELDS)}; found: {found}."
            )
        value = value[fields[0]]
    if not isinstance(value, str):
        raise InvalidRequestError("An instance must be a base64 text, or an object with one.")
    return value


async def decoded_instances(instances: Any, upload: Upload, *, max_images: int) -> list[bytes]:
    """Returns the image files of a list of instances.

    Args:
        instances: the list, as it was parsed; see `instance_text`.
        upload: the upload that it came with, whose bytes the decoded ones count with.
        max_images: the largest number of images.

    Raises:
        InvalidRequestError: it is no list, it is empty, or an instance has no image in base64.
        InvalidParameterError: there are too many.
        EmptyBodyError: an image has no bytes.
        OverloadedError: there is no room for the decoded bytes now.
    """
    if not isinstance(instances, list) or not instances:
        raise InvalidRequestError("The instances must be a list with at least one image.")
    if len(instances) > max_images:
        raise InvalidParameterError(
            f"The request has {len(instances)} images; at most {max_images} may be sent at once."
        )
    texts = [_in_place(instance_text, place, instance, len(instances)) for place, instance in enumerate(instances)]
    return await decoded_texts(texts, upload)


async def decoded_texts(texts: Sequence[str], upload: Upload) -> list[bytes]:
    """Returns the files of base64 texts; see `decoded_instances`."""

    def decode() -> list[bytes]:
        return [_in_place(decoded_text, place, text, len(texts)) for place, text in enumerate(texts)]

    characters = sum(map(len, texts))
    upload.held.add(3 * characters // 4)
    return decode() if characters <= _FEW_CHARACTERS else await asyncio.to_thread(decode)


def _in_place(decode: Any, place: int, value: Any, count: int) -> Any:
    """Returns `decode(value)`; its error tells which of several images it was."""
    try:
        return decode(value)
    except (InvalidRequestError, EmptyBodyError) as error:
        if count == 1:
            raise
        raise type(error)(f"Image {place}: {error.detail}") from error
