"""The names that this package takes from inside uvicorn, which promises none of them.

They were read in uvicorn 0.54.0. pyproject.toml allows a newer version only when its httptools_impl.py has been read
too.
"""

from __future__ import annotations

from typing import Final

UVICORN_NAMES: Final = {
    "HttpToolsProtocol": {
        "loop": "the event loop of the connection",
        "transport": "what answers are written to",
        "scheme": "`http` or `https`",
        "server_state": "what all connections of the process share",
        "url": "the target of the request whose head is being parsed, as bytes",
        "headers": "its headers so far, as pairs of bytes",
        "parser": "httptools' parser of the connection",
        "expect_100_continue": "whether its client waits for `100 Continue` before it sends the body",
        "cycle": "the latest request and its answer; None before the first request",
        "pipeline": "requests whose heads came while one before them has no answer yet, the latest first",
        "flow": "pauses and resumes reading and writing",
        "pause_writing": "called by the transport when much waits to be sent",
        "resume_writing": "called by the transport when little waits to be sent",
        "shutdown": "called when the service ends",
        "logger": "the logger of errors",
        "timeout_keep_alive": "how long a connection may be idle, in seconds",
        "timeout_keep_alive_task": "the timer of an idle connection; None while there is none",
        "timeout_keep_alive_handler": "called by that timer",
        "_unset_keepalive_if_required": "stops that timer",
        "on_message_begin": "called by the parser at a request's first byte",
        "on_headers_complete": "called by the parser after a head; makes the cycle and starts the application",
        "on_body": "called by the parser with each piece of a body",
        "on_message_complete": "called by the parser after a request's last byte",
        "on_response_complete": "called by the cycle after an answer; starts the next request or the idle timer",
        "send_400_response": "answers bytes that are not HTTP",
    },
    "RequestResponseCycle": {
        "body": "what has come of the body, and the application has not taken",
        "response_started": "whether the head of the answer has been written",
        "response_complete": "whether the answer has been written",
        "keep_alive": "whether the connection stays open after the answer",
        "transport": "what the answer is written to",
        "disconnected": "whether nobody waits for the answer any more; the application is told so",
        "message_event": "wakes the application when there is more of the body, or nobody waits any more",
    },
    "ServerState": {
        "default_headers": "headers of every answer",
        "total_requests": "how many requests were answered",
    },
}
