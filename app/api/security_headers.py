"""What every response tells browsers: trust nothing but what we say, keep nothing, show it in no frame."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

RawHeaders = tuple[tuple[bytes, bytes], ...]

_ALWAYS: Final[RawHeaders] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
_UNLESS_SET: Final[RawHeaders] = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),  # answers tell of images, and of who may ask
)
_OVER_TLS: Final[RawHeaders] = ((b"strict-transport-security", b"max-age=31536000"),)


class SecurityHeadersMiddleware:
    """Adds the headers to every response, errors and preflights included: the outermost layer.

    Args:
        app: what it wraps.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = dict(headers)  # ASGI has names in lower case
                headers += _ALWAYS
                headers += (header for header in _UNLESS_SET if header[0] not in present)
                if scope.get("scheme") == "https":  # ours, or that of a proxy on this machine
                    headers += _OVER_TLS
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, send_with_headers)


def security_headers(scheme: str) -> RawHeaders:
    """Returns the headers of an answer that has none of its own, over `http` or `https`."""
    return _ALWAYS + _UNLESS_SET + (_OVER_TLS if scheme == "https" else ())
