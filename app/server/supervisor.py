"""Starts the worker processes, replaces those that die, and ends them in order.

bind the address -> number of workers -> runtime folder -> fork -> a worker dies: fork another -> SIGTERM: all drain
-> remove the folder

The supervisor is the parent process. It loads no model and starts no thread, CUDA or OpenVINO, so that a fork of it is
a clean process. For several workers it imports what all of them need, which is then in memory once.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkContext, ForkProcess, SpawnContext, SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any, Final

from app.server.first_process import reap_orphans
from app.server.runtime_folder import runtime_folder
from app.server.start import CANNOT_START, SAME_SIGNAL_S, STOP_SIGNALS, Listening, check_start, listen_on_all
from app.server.tls import tls_options
from app.serving.worker_count import worthwhile_workers
from app.settings import Settings
from app.system.worker_board import METRICS_FOLDER, WorkerBoard, WorkerPlace
from app.telemetry.metric_files import forget_worker

logger = logging.getLogger("app.workers")

_POLL_S: Final = 0.1
_MOMENT_S: Final = 0.05
# After a worker that died before it was ready, the next one starts 1, 2, 4 ... seconds later.
_FIRST_DELAY_S: Final = 1.0
_MAX_DELAY_S: Final = 30.0
# A worker may take this much longer than its drain to end, until it is killed.
_MARGIN_S: Final = 10.0
# A worker counts as hung when its event loop has not moved for this long, and for longer than a request may take.
_MIN_HUNG_S: Final = 30.0


def serve(settings: Settings) -> int:
    """Serves until a signal ends the service.

    Args:
        settings: the settings of the service.

    Returns:
        the exit status.

    Raises:
        PredictorError: the service cannot start, such as `AddressError` when the address is taken.
    """
    check_start(settings)
    tls = tls_options(settings)
    listening = listen_on_all(settings, scheme="https" if tls else "http")
    if sys.platform != "linux" and settings.worker_count in {None, 1}:  # fork is not safe there, or does not exist
        from app.server.worker import serve_process

        serve_process(settings, listening, tls)
        return 0
    workers = settings.worker_count or worthwhile_workers(settings)
    if workers > 1:
        import app.main
        import app.server.uvicorn_server
        import app.server.worker  # noqa: F401 - for the workers to share
    with runtime_folder() as folder:
        return Supervisor(settings, listening, tls, folder, workers).run()


@dataclass
class _WorkerSeat:
    """The place of one worker, which one process after the other takes.

    Attributes:
        index: the worker's number, from 0.
        process: the process that runs now; None while there is none.
        was_ready: whether this process has ever been ready.
        is_killed: whether this process was stuck and has been killed.
        failed_starts: the number of processes in a row that died before they were ready.
        start_at: the time from which the next process may start, on the clock of time.monotonic().
    """

    index: int
    process: ForkProcess | SpawnProcess | None = None
    was_ready: bool = False
    is_killed: bool = False
    failed_starts: int = 0
    start_at: float = 0.0


class Supervisor:
    """Keeps the workers running.

    Args:
        settings: the settings of the service.
        listening: the sockets that all workers take connections from.
        tls: the arguments of `uvicorn.Config` for HTTPS, from `tls_options`; empty for plain HTTP.
        folder: a private, empty folder for the workers to share.
        workers: how many workers to run.
    """

    def __init__(
        self, settings: Settings, listening: Listening, tls: Mapping[str, Any], folder: Path, workers: int
    ) -> None:
        self._settings = settings
        self._listening = listening
        self._tls = tls
        self._folder = folder
        (folder / METRICS_FOLDER).mkdir()
        self._board = WorkerBoard.create(folder / WorkerBoard.FILE_NAME, workers=workers)
        self._seats = [_WorkerSeat(index) for index in range(workers)]
        self._context: ForkContext | SpawnContext = multiprocessing.get_context(  # type: ignore[assignment]
            "fork" if sys.platform == "linux" else "spawn"
        )
        self._signals = 0
        self._has_served = False
        self._last_exit_code: int | None = None
        self._hung_after_s = max(_MIN_HUNG_S, settings.request_timeout_s)

    def run(self) -> int:
        """Runs until a signal has ended all workers, or none can start.

        Returns:
            the exit status.
        """
        with self._handling_signals() as woken:
            try:
                while not self._signals:
                    self._start_missing()
                    ending = wait([*self._sentinels(), woken], _POLL_S)
                    for seat in self._seats:
                        if seat.process and seat.process.sentinel in ending:
                            seat.process.join()  # a sentinel is ready a moment before the process has ended
                        if self._has_ended(seat) and self._cannot_start():
                            return CANNOT_START
                    self._replace_stuck()
                    reap_orphans(besides={seat.process.pid for seat in self._seats if seat.process})
                return self._drain(woken)
            finally:
                for seat in self._seats:
                    if seat.process:
                        seat.process.kill()
                        seat.process.join()

    @contextlib.contextmanager
    def _handling_signals(self) -> Iterator[socket.socket]:
        """Counts stop signals, and yields a socket that becomes readable at each."""
        woken, waking = socket.socketpair()
        woken.setblocking(False)
        waking.setblocking(False)

        before: tuple[int, float] | None = None

        def count(number: int, _frame: FrameType | None) -> None:
            nonlocal before
            now = time.monotonic()
            # Sent to the whole group and to this process, or by `make` besides the terminal: it is the same one.
            if before is None or before[0] != number or now - before[1] > SAME_SIGNAL_S:
                self._signals += 1
                before = number, now

        # A signal that is ignored stays ignored: `nohup` means it.
        numbers = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        previous = {number: signal.signal(number, count) for number in numbers}
        previous_fd = signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        try:
            yield woken
        finally:
            signal.set_wakeup_fd(previous_fd)
            for number, handler in previous.items():
                signal.signal(number, handler)
            woken.close()
            waking.close()

    def _sentinels(self) -> list[int]:
        return [seat.process.sentinel for seat in self._seats if seat.process]

    def _start_missing(self) -> None:
        for seat in self._seats:
            if seat.process is None and time.monotonic() >= seat.start_at:
                self._start(seat)

    def _start(self, seat: _WorkerSeat) -> None:
        self._board.status_of(seat.index).clear()
        place = WorkerPlace(self._folder, workers=len(self._seats), index=seat.index, board=self._board)
        seat.was_ready = seat.is_killed = False
        seat.process = self._context.Process(
            target=_run_worker,
            args=(self._settings, self._listening, self._tls, place, os.getpid()),
            name=f"worker-{seat.index}",
        )
        # Until the worker has its own handlers, its copy of our handler would count a signal, and the signal be lost.
        with _signals_blocked():
            seat.process.start()

    def _has_ended(self, seat: _WorkerSeat) -> bool:
        """Returns whether the seat's process has just ended; logs it, and frees the seat."""
        seat.was_ready = seat.was_ready or self._board.status_of(seat.index).ready
        self._has_served = self._has_served or seat.was_ready
        if seat.process is None or seat.process.is_alive():
            return False
        process, status = seat.process, self._board.status_of(seat.index)
        seat.process = None
        forget_worker(self._folder / METRICS_FOLDER, seat.index)
        if process.exitcode == -signal.SIGTERM and not self._signals:
            time.sleep(_MOMENT_S)  # sent to the whole group, it may reach this process a moment later
        if (status.retiring and process.exitcode == 0) or self._signals:
            logger.info("Worker %d (process %d) has ended.", seat.index, process.pid)
        else:
            seat.failed_starts = 0 if seat.was_ready else seat.failed_starts + 1
            delay_s = min(_MAX_DELAY_S, _FIRST_DELAY_S * 2 ** (seat.failed_starts - 1)) if seat.failed_starts else 0.0
            seat.start_at = time.monotonic() + delay_s
            self._board.restarts += 1
            logger.error(
                "Worker %d (process %d) died: %s. Another takes its seat%s.", seat.index, process.pid,
                _describe_exit(process.exitcode), f" in {delay_s:.0f} s" if delay_s else "",
            )  # fmt: skip
        status.clear()
        self._last_exit_code = process.exitcode
        return True

    def _cannot_start(self) -> bool:
        """Returns whether no worker can. Once one has served, what keeps another from starting may be mended."""
        return self._last_exit_code == CANNOT_START and not self._has_served

    def _replace_stuck(self) -> None:
        for seat in self._seats:
            status = self._board.status_of(seat.index)
            hung = seat.was_ready and not status.retiring and status.silent_s > self._hung_after_s
            if seat.process and not seat.is_killed and (hung or status.wants_restart):
                reason = (
                    f"its event loop has not moved for {status.silent_s:.0f} s" if hung else "its inference is stuck"
                )
                logger.error("Worker %d (process %d) is ended: %s.", seat.index, seat.process.pid, reason)
                seat.is_killed = True
                seat.process.kill()

    def _drain(self, woken: socket.socket) -> int:
        """Lets every worker finish what it has; returns the exit status."""
        logger.info("Shutting down.")
        self._board.draining = True
        self._listening.close()  # the workers still have it, and take the connections of its backlog
        for seat in self._seats:
            if seat.process:
                seat.process.terminate()
        settings = self._settings
        deadline = time.monotonic() + settings.drain_delay_s + settings.drain_timeout_s + _MARGIN_S
        while running := [seat.process for seat in self._seats if seat.process and seat.process.is_alive()]:
            if self._signals > 1:
                return 0
            if time.monotonic() > deadline:
                pids = ", ".join(str(process.pid) for process in running)
                logger.error("Workers that do not end are killed: processes %s.", pids)
                return 1
            wait([*(process.sentinel for process in running), woken], _POLL_S)
            with contextlib.suppress(BlockingIOError):
                woken.recv(64)
        return 0


def _run_worker(*arguments: Any) -> None:
    from app.server.worker import run_worker  # with all that a model needs

    run_worker(*arguments)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit status {code}"
