"""Declines every offer to speak another protocol, as a server may (RFC 9110, section 7.8).

a head with `Upgrade: h2c` -> httptools stops behind it -> a new parser -> the same head without the offer -> the rest

Java's HttpClient and `curl --http2` offer HTTP/2 in this way with their first request, which may have a body. httptools
never parses that body: what comes behind the head would be taken for the next request.
"""

from __future__ import annotations

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_BAD_REQUEST = "Invalid HTTP request received."


class OffersDeclined(HttpToolsProtocol):
    """uvicorn's protocol for HTTP/1.1 alone. A request with an offer is served as the same request without it."""

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, and a new one whenever it stops behind a head with an offer."""
        self._unset_keepalive_if_required()
        rest = memoryview(data)
        try:
            while True:
                try:
                    return self.parser.feed_data(rest)
                except httptools.HttpParserUpgrade as upgrade:
                    rest = rest[upgrade.args[0] :]
                if self.parser.get_method() == b"CONNECT":  # no header offers this tunnel, and none can be left out
                    return self.send_400_response("CONNECT is for proxies, and this is none.")
                head = self._head_without_offer()
                self.parser = httptools.HttpRequestParser(self)
                self.parser.feed_data(head)
        except httptools.HttpParserError:
            self.logger.warning(_BAD_REQUEST)
            self.send_400_response(_BAD_REQUEST)

    def _head_without_offer(self) -> bytes:
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                options = [option.strip() for option in value.split(b",")]
                value = b", ".join(option for option in options if option.lower() != b"upgrade")
            if name != b"upgrade":
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])
