"""Reads a form (multipart/form-data) as it streams.

chunks -> without what is before the first boundary -> python-multipart's parser -> parts
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import EmptyBodyError, MissingFileError

SINGLE_FIELDS: Final = ("file", "image")
"""The fields whose one file is the image of a request, the most telling first."""
_MAX_PARTS: Final = 256  # a form of a few hundred thousand empty parts would cost seconds and hundreds of megabytes


@dataclass(slots=True)
class Part:
    """One part of a form.

    Attributes:
        field_name: the name of its field; empty if it has none.
        file_name: the name of its file; None if it has none, empty if its user chose no file.
        content_type: its content type in lower case; empty if it has none.
        content: its bytes.
    """

    field_name: str = ""
    file_name: str | None = None
    content_type: str = ""
    content: bytearray = field(default_factory=bytearray, repr=False)

    def is_file_among(self, fields: Sequence[str]) -> bool:
        """Returns whether the part is a file, by its name, its type or its field.

        Args:
            fields: the fields that are files without a name too, as `curl -F 'file=<cat.jpg'` sends them.
        """
        if self.file_name == "" and not self.content:  # what browsers send of an input without a file
            return False
        return self.file_name is not None or self.field_name in fields or self.content_type.startswith("image/")

    @property
    def is_json(self) -> bool:
        """Whether the part is declared as JSON, as clients send what they say about an image beside it."""
        media_type = self.content_type.partition(";")[0].strip()
        return media_type in {"application/json", "text/json"} or media_type.endswith("+json")


async def read_form(chunks: AsyncIterator[bytes], boundary: bytes) -> list[Part]:
    """Returns the parts of a form, in order.

    Args:
        chunks: its bytes, as they come.
        boundary: what separates its parts, as its content type says.

    Raises:
        EmptyBodyError: no bytes came.
        MissingFileError: the bytes are no form with this boundary, or not a whole one.
    """
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks)  # type: ignore[arg-type]
        async for chunk in _without_preamble(chunks, boundary):
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise MissingFileError(f"The body is not a well-formed form: {error}.") from error
    if not form.is_complete:
        raise MissingFileError("The form is cut short: its closing boundary is missing.")
    return form.parts


async def _without_preamble(chunks: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[bytes]:
    """Yields a form from its first boundary on. What is before it means nothing (RFC 2046, section 5.1.1)."""
    start = b"\n--" + boundary
    is_empty, searched = True, b"\n"
    async for chunk in chunks:
        is_empty = False
        searched += chunk
        place = searched.find(start)
        if place >= 0:
            yield searched[place + 1 :]
            break
        searched = searched[1 - len(start) :]
    else:
        if is_empty:
            raise EmptyBodyError("The request has no body: send a form with the field 'file'.")
        raise FormParserError("the boundary that its Content-Type names is not in it")
    async for chunk in chunks:
        yield chunk


class _Form:
    """Collects the parts of a form from the parser's callbacks; the bytes of a file are copied once."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.is_complete = False
        self._header_name = bytearray()
        self._header_value = bytearray()
        self.callbacks = {
            "on_part_begin": self._on_part_begin,
            "on_part_data": self._on_part_data,
            "on_header_begin": self._on_header_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        if len(self.parts) == _MAX_PARTS:
            raise FormParserError(f"it has more than {_MAX_PARTS} parts")
        self.parts.append(Part())

    def _on_header_begin(self) -> None:
        self._header_name.clear()
        self._header_value.clear()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        name, part = bytes(self._header_name).lower(), self.parts[-1]
        if name == b"content-type":
            part.content_type = self._header_value.decode("latin-1").lower()
        elif name == b"content-disposition":
            _, options = parse_options_header(bytes(self._header_value))
            part.field_name = options.get(b"name", b"").decode("utf-8", "replace")
            file_name = options.get(b"filename")
            part.file_name = None if file_name is None else file_name.decode("utf-8", "replace")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].content += memoryview(data)[start:end]

    def _on_end(self) -> None:
        self.is_complete = True
