"""What is kept of a request, whoever answered it: its id, its count in the metrics, its line in the log."""

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
    """Returns the id that a client gave to its request, or a new one if it gave none that can be used."""
    # An id is no secret, only unique: by the generator that each process seeds for itself, without a system call.
    return given if given and _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


class RequestRecorder:
    """Counts answered requests, and logs them where that is wanted.

    Args:
        metrics: that count.
        access_log: whether each has a line.
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
        """Keeps what is to be kept of one request.

        Args:
            method: of HTTP.
            path: that was asked for.
            route: its template.
            status: of the answer.
            code: of the error, or empty.
            seconds: from its head to its answer.
            fields: what its log lines say of it: `request_id`, and `trace_id` where traced.
            api_key_name: whose key it came with.
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
