"""Writes web origins as browsers send them in the header `Origin`, so that equal ones are equal texts.

"HTTPS://Shop.example:443/" -> normal_origin -> "https://shop.example"

Source: https://www.rfc-editor.org/rfc/rfc6454#section-6.2 and https://url.spec.whatwg.org/#host-serializing
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE)
_HOST: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")


def normal_origin(origin: str) -> str:
    """Returns an origin as browsers write it: in lower case, without a slash at its end and without a default port.

    Args:
        origin: scheme, host and perhaps a port; or `*` for every origin, or `null` for pages that have none.

    Raises:
        ValueError: no page has such an origin. The sentence says what is wrong.
    """
    if origin in {"*", "null"}:
        return origin
    scheme, separator, _ = origin.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        raise ValueError(f"{origin!r} has no scheme: an origin is written like https://shop.example")
    try:
        parts = urlsplit(origin)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"{origin!r} is no origin: {error}") from error
    if parts.path not in {"", "/"} or parts.query or parts.fragment or origin.endswith(("?", "#")):
        raise ValueError(f"{origin!r} has more than scheme, host and port, and a browser sends nothing else")
    if "@" in parts.netloc:
        raise ValueError(f"{origin!r} has a user's name, which no browser sends in an origin")
    if "*" in host:
        raise ValueError(f"{origin!r} has a * in its host: list each host, or allow every origin with * alone")
    if not host.isascii():
        raise ValueError(f"{origin!r} has letters beyond ASCII: write the host as browsers send it, xn--...")
    host = _normal_host(host, origin)
    return f"{parts.scheme}://{host}" + ("" if port in {None, _DEFAULT_PORTS.get(parts.scheme)} else f":{port}")


def _normal_host(host: str, origin: str) -> str:
    if ":" in host:
        try:
            return f"[{ipaddress.IPv6Address(host)}]"
        except ValueError as error:
            raise ValueError(f"{origin!r} has no valid IPv6 address") from error
    if not _HOST.fullmatch(host):
        raise ValueError(f"{origin!r} has no valid host")
    return host
