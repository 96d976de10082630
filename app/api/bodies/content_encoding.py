"""Decodes bodies that were compressed on their way (`Content-Encoding: gzip` or `deflate`), within their limit.

chunks -> pieces of at most 256 KiB, counted as they are made -> uploads.py
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from starlette.requests import Request

from app.errors import CorruptImageError, UnsupportedEncodingError

_PIECE_BYTES: Final = 256 * 1024  # about a millisecond of the event loop
_MAX_MEMBERS: Final = 100  # of one gzip; each costs a decoder
_GZIP: Final = 16 + zlib.MAX_WBITS
_ENCODINGS: Final = ("gzip", "deflate")
ACCEPTED: Final = ", ".join(_ENCODINGS)
"""The value of `Accept-Encoding` (RFC 9110, section 12.5.3) that tells clients what a body may be."""


def content_encoding(request: Request) -> str:
    """Returns how the body of a request is compressed: `gzip`, `deflate`, or empty if it is not.

    Args:
        request: the request.

    Raises:
        UnsupportedEncodingError: it is compressed in another way, or several times.
    """
    if "content-encoding" not in request.headers:
        return ""
    text = ", ".join(request.headers.getlist("content-encoding")).lower()
    encodings = [name.strip().removeprefix("x-") for name in text.split(",") if name.strip() not in {"", "identity"}]
    if len(encodings) > 1 or not {*encodings} <= {*_ENCODINGS}:
        raise UnsupportedEncodingError(
            f"The Content-Encoding is {text[:100]!r}. Send the body as it is, or with one of {ACCEPTED}."
        )
    return "".join(encodings)


async def decoded(chunks: AsyncIterator[bytes], encoding: str, count: Callable[[int], None]) -> AsyncIterator[bytes]:
    """Yields a decoded body in pieces. Between two of them the event loop has its turn.

    Args:
        chunks: the body, as it comes.
        encoding: `gzip` or `deflate`.
        count: called with the size of each piece in bytes before it is yielded; refuses too many by an exception.

    Raises:
        CorruptImageError: the body is not what `encoding` says, or it is damaged or cut short.
    """
    inflater, members = None, 0
    try:
        async for chunk in chunks:
            rest = chunk
            while rest:
                if inflater is None or inflater.eof:  # gzip may consist of several members (RFC 1952, section 2.2)
                    members += 1
                    if members > (_MAX_MEMBERS if encoding == "gzip" else 1):
                        raise CorruptImageError(f"Something is behind the end of the body's {encoding}.")
                    inflater = zlib.decompressobj(_window_bits(encoding, rest[0]))
                piece = inflater.decompress(rest, _PIECE_BYTES)
                rest = inflater.unconsumed_tail or inflater.unused_data
                count(len(piece))
                yield piece
                await asyncio.sleep(0)
        if inflater is None:
            return
        piece = inflater.flush()
    except zlib.error as error:
        raise CorruptImageError(
            f"The body is not sound {encoding}, which its Content-Encoding names: {error}."
        ) from None
    if not inflater.eof:
        raise CorruptImageError(f"The body's {encoding} is cut short.")
    count(len(piece))
    yield piece


def _window_bits(encoding: str, first: int) -> int:
    if encoding == "gzip":
        return _GZIP
    has_header = first & 0x0F == zlib.DEFLATED  # as RFC 9110 says; some clients send the bare stream
    return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS
