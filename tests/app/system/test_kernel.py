"""Threads that compute run at a lower priority than the event loop."""

from __future__ import annotations

import os
import sys
import threading

import pytest
from starlette.testclient import TestClient

from app.system.kernel import lower_thread_priority

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads are Linux's")


def test_stepping_back_twice_is_stepping_back_once() -> None:
    niceness: list[int] = []

    def work() -> None:
        for _ in range(2):
            lower_thread_priority()
            niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert own < niceness[0] == niceness[1]


def test_streams_step_back_behind_the_event_loop(client: TestClient) -> None:
    streams = [thread.native_id for thread in threading.enumerate() if thread.name.startswith("stream-")]

    assert client.get("/health/ready").status_code == 200
    assert streams
    for stream in streams:
        assert stream
        assert os.getpriority(os.PRIO_PROCESS, stream) > os.getpriority(os.PRIO_PROCESS, os.getpid())
