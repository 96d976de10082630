"""Origins are written as browsers send them, or refused."""

from __future__ import annotations

import pytest

from app.system.origins import normal_origin


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("https://a.example/", "https://a.example"),
        ("HTTPS://A.Example:443", "https://a.example"),
        ("http://a.example:80/", "http://a.example"),
        ("http://a.example:443", "http://a.example:443"),
        ("https://a.example:08443", "https://a.example:8443"),
        ("http://localhost:3000/", "http://localhost:3000"),
        ("http://[0:0:0:0:0:0:0:1]:8080", "http://[::1]:8080"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("*", "*"),
        ("null", "null"),
    ],
)
def test_origin_is_written_as_browsers_send_it(given: str, sent: str) -> None:
    assert normal_origin(given) == sent


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        ("a.example", "no scheme"),
        ("localhost:3000", "no scheme"),
        ("//a.example", "no scheme"),
        ('"https://a.example"', "no scheme"),
        ("https://a.example/app", "more than scheme, host and port"),
        ("https://a.example?x=1", "more than scheme, host and port"),
        ("https://a.example/#", "more than scheme, host and port"),
        ("https://ann@a.example", "a user's name"),
        ("https://*.a.example", "a \\* in its host"),
        ("https://b\u00fccher.example", "xn--"),
        ("https://", "no valid host"),
        ("https://a example", "no valid host"),
        ("https://a.example:port", "is no origin"),
        ("https://a.example:99999", "is no origin"),
        ("https://[::g]", "no"),
    ],
)
def test_what_no_browser_sends_is_refused(origin: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        normal_origin(origin)
