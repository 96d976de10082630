"""What pages of other origins may send and read (CORS), in the application's answers and in those of a connection.

Source: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app.settings import Settings

_EXPOSED_HEADERS: Final = ("X-Request-ID", "Server-Timing", "Retry-After")
# What the service reads, and what libraries in pages add by themselves: W3C Trace Context and Baggage, Sentry, and the
# mark that jQuery, axios and Dropzone put on their requests.
_ALLOWED_HEADERS: Final = (
    *("Authorization", "Content-Type", "X-API-Key", "X-Request-ID", "X-Request-Timeout-Ms"),
    *("traceparent", "tracestate", "baggage", "sentry-trace", "X-Requested-With"),
)


def allow_origins(app: FastAPI, settings: Settings) -> None:
    """Lets pages of the origins that the settings name call the application."""
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST", "PUT"],
            allow_headers=(*_ALLOWED_HEADERS, *settings.allowed_headers),
            expose_headers=_EXPOSED_HEADERS,
        )


def cross_origin_headers(
    settings: Settings, request_headers: Iterable[tuple[bytes, bytes]]
) -> tuple[tuple[bytes, bytes], ...]:
    """Returns the headers that let a page read an answer that is written without the application.

    Args:
        settings: which origins are allowed.
        request_headers: the headers of the request, with their names in lower case, as far as they could be read.
    """
    allowed = settings.allowed_origins if settings.cors_origins else []
    if "*" in allowed:
        return (b"access-control-allow-origin", b"*"), _EXPOSE
    # One that could not be read may have been this one.
    default = allowed[0] if len(allowed) == 1 else ""
    origin = next((value.decode("latin-1") for name, value in request_headers if name == b"origin"), default)
    if origin not in allowed:
        return ()
    return (b"access-control-allow-origin", origin.encode()), _EXPOSE, (b"vary", b"Origin")


_EXPOSE: Final = (b"access-control-expose-headers", ", ".join(_EXPOSED_HEADERS).encode())
