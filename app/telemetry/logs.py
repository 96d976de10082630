"""Writes log lines, for people or as JSON, each with the id of the request that it belongs to.

a record of any logger (ours, uvicorn's, a warning) -> + request id, + trace id -> one line on stderr
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, Literal, TextIO

from pythonjsonlogger.json import JsonFormatter

request_fields: ContextVar[Mapping[str, str]] = ContextVar("request_fields", default=MappingProxyType({}))
"""Fields of every log line that is written in the context of a request: `request_id`, and `trace_id` with tracing."""

# A path or a header may hold line breaks and terminal codes. Unescaped, they would forge lines or change the terminal.
_ESCAPES: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def configure_logging(level: str, log_format: Literal["console", "json"] = "console") -> None:
    """Sends the log lines of the whole process to stderr, unless its handlers are set up already.

    Args:
        level: the lowest severity that is written.
        log_format: `console` for people, `json` for one JSON object a line.
    """
    logging.basicConfig(level=level.upper(), handlers=[log_handler(log_format)])
    logging.captureWarnings(True)
    # Pillow warns about oddities of clients' images; the answer tells clients what matters to them.
    warnings.filterwarnings("ignore", module="PIL")


def log_handler(log_format: Literal["console", "json"], stream: TextIO | None = None) -> logging.Handler:
    """Returns a handler that writes log lines.

    Args:
        log_format: `console` for people, `json` for one JSON object a line.
        stream: the stream to write to; None for stderr.
    """
    handler = logging.StreamHandler(stream)
    handler.addFilter(_add_request_fields)
    handler.setFormatter(_json_formatter() if log_format == "json" else _ConsoleFormatter())
    return handler


def _add_request_fields(record: logging.LogRecord) -> bool:
    for name, value in request_fields.get().items():
        setattr(record, name, value)
    return True


class _ConsoleFormatter(logging.Formatter):
    """Writes time, level and message on one line, and a traceback below it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that logging calls
        return super().formatMessage(record).translate(_ESCAPES)


def _json_formatter() -> logging.Formatter:
    return _JsonFormatter(
        ["levelname", "name", "message", "process"],
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
    )


class _JsonFormatter(JsonFormatter):
    """Writes `time`, `level`, `logger`, `message` and `process`, then the record's own fields."""

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        written_at = datetime.fromtimestamp(record.created, UTC)
        log_data["time"] = written_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        super().add_fields(log_data, record, message_dict)
