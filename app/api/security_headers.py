"""Adds the security headers to every response: they tell browsers to trust, keep and frame nothing.

Browsers apply them; other clients ignore them. docs/security.md explains each.
"""

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
    (b"cache-control", b"no-store"),  # answers tell about images, and about who has a key
)
_OVER_TLS: Final[RawHeaders] = ((b"strict-transport-security", b"max-age=31536000"),)


class SecurityHeadersMiddleware:
    """The outermost layer of the application: adds the headers to every response, errors and preflights included.

    Args:
        app: the layer inside.
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
                if scope.get("scheme") == "https":  # by our own TLS, or by that of a proxy on this machine
                    headers += _OVER_TLS
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, send_with_headers)


def security_headers(scheme: str) -> RawHeaders:
    """Returns the security headers of an answer that is written without the application.

    Args:
        scheme: `http` or `https`.
    """
    return _ALWAYS + _UNLESS_SET + (_OVER_TLS if scheme == "https" else ())
