"""The id of a request, its count in the metrics, and its line in the access log."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Mapping
from typing import Final

from app.telemetry.logs import request_fields
from app.telemetry.metrics import Metrics

access_logger = logging.getLogger("app.access")

_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


def request_id_of(given: str) -> str:
    """Returns the id of a request: the client's own, or a new one of 32 hexadecimal digits.

    Args:
        given: the client's `X-Request-ID`, or an empty string. It is used if it has 1 to 128 visible ASCII characters.
    """
    # An id must be unique, not secret. This generator needs no system call; each process seeds its own.
    return given if given and _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


class RequestRecorder:
    """Counts requests that were answered, and logs them if the settings ask for it.

    Args:
        metrics: the metrics of this process.
        access_log: whether to log a line for every request.
    """

    def __init__(self, metrics: Metrics, *, access_log: bool) -> None:
        self._metrics = metrics
        self._access_log = access_log

    def record(
        self,
        *,
        method: str,
        path: str,
        route: str,
        status: int,
        code: str,
        seconds: float,
        fields: Mapping[str, str],
        api_key_name: str | None = None,
    ) -> None:
        """Counts and logs one request.

        Args:
            method: the HTTP method.
            path: the path that was asked for.
            route: the path's template, such as `/models/{name}`; `unmatched` where no route was found.
            status: the status code of the answer.
            code: the error's code; empty for a success.
            seconds: the time from the request's head to its answer.
            fields: what every log line of the request carries: `request_id`, and `trace_id` if it is traced.
            api_key_name: the name of the API key that came with it; None without a key.
        """
        self._metrics.count_request(route, method, status, code, seconds)
        if not self._access_log:
            return
        duration_ms = 1000 * seconds
        extra = {
            "method": method,
            "path": path,
            "route": route,
            "status": status,
            "code": code or None,
            "duration_ms": round(duration_ms, 3),
            "api_key_name": api_key_name,
        }
        context = request_fields.set(fields)
        access_logger.info(
            "%s %s %d %.1f ms %s", method, path, status, duration_ms, fields["request_id"],
            extra={name: value for name, value in extra.items() if value is not None},
        )  # fmt: skip
        request_fields.reset(context)
