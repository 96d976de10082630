"""Workers share connections: two acceptors in one process, with the board between them."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from app.server.acceptor import Acceptor
from app.system.worker_board import WorkerBoard, WorkerPlace

pytestmark = pytest.mark.anyio


class Worker:
    """As much of a worker as an acceptor needs: connections that stay open."""

    def __init__(self, listening: socket.socket, place: WorkerPlace) -> None:
        self.connections: list[socket.socket] = []
        self.wants_connections = True
        self.place = place
        self.acceptor = Acceptor(
            listening.dup(),
            on_connection=self.connections.append,
            connections=lambda: len(self.connections),
            wanted=lambda: self.wants_connections,
            place=place,
        )

    def publish(self, *, accepting: bool = True) -> None:
        self.place.status.publish(accepting=accepting, ready=True, connections=len(self.connections))


@pytest.fixture
def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def two_workers(listening: socket.socket, folder: Path) -> list[Worker]:
    board = WorkerBoard.create(folder / WorkerBoard.FILE_NAME, workers=2)
    return [Worker(listening, WorkerPlace(folder, 2, index, board)) for index in range(2)]


async def connect(listening: socket.socket, workers: list[Worker], count: int) -> list[socket.socket]:
    """Opens connections, and waits until a worker has each."""
    before = sum(len(worker.connections) for worker in workers)
    clients = [socket.create_connection(listening.getsockname()) for _ in range(count)]
    async with asyncio.timeout(10):
        while sum(len(worker.connections) for worker in workers) < before + count:
            await asyncio.sleep(0)
    return clients


def close(clients: list[socket.socket], workers: list[Worker], listening: socket.socket) -> None:
    for worker in workers:
        worker.acceptor.close(accept_backlog=False)
    for each in [*clients, *(connection for worker in workers for connection in worker.connections), listening]:
        each.close()


async def test_connections_are_shared_evenly(listening: socket.socket, tmp_path: Path) -> None:
    workers = two_workers(listening, tmp_path)
    for worker in workers:
        worker.publish()
        worker.acceptor.open()
    clients = await connect(listening, workers, 20)

    assert sorted(len(worker.connections) for worker in workers) == [10, 10]
    close(clients, workers, listening)


async def test_excess_is_what_a_worker_has_beyond_its_share_and_little_is_none(
    listening: socket.socket, tmp_path: Path
) -> None:
    many, few = workers = two_workers(listening, tmp_path)

    def excess(of_many: int, of_few: int) -> list[int]:
        for worker, count in zip(workers, (of_many, of_few), strict=True):
            worker.connections = [listening] * count
            worker.publish()
        return [worker.acceptor.excess() for worker in workers]

    assert excess(32, 0) == [16, 0]
    assert excess(20, 12) == [4, 0]
    assert excess(19, 13) == [3, 0]
    assert excess(18, 14) == [0, 0]
    assert excess(2, 0) == [0, 0]
    assert excess(1000, 800) == [0, 0]
    few.publish(accepting=False)
    assert many.acceptor.excess() == 0
    close([], workers, listening)


async def test_sibling_that_does_not_come_is_not_waited_for(listening: socket.socket, tmp_path: Path) -> None:
    """It says that it takes connections, and has none: all the same, they are taken."""
    awake, hung = workers = two_workers(listening, tmp_path)
    for worker in workers:
        worker.publish()
    awake.acceptor.open()
    clients = await connect(listening, workers, 5)

    assert (len(awake.connections), len(hung.connections)) == (5, 0)
    close(clients, workers, listening)


async def test_worker_that_wants_none_leaves_them_to_its_sibling(listening: socket.socket, tmp_path: Path) -> None:
    ready, loading = workers = two_workers(listening, tmp_path)
    loading.wants_connections = False
    for worker in workers:
        worker.publish()
        worker.acceptor.open()
    clients = await connect(listening, workers, 5)

    assert (len(ready.connections), len(loading.connections)) == (5, 0)
    close(clients, workers, listening)


async def test_last_worker_takes_what_waits_before_it_closes(listening: socket.socket, tmp_path: Path) -> None:
    workers = two_workers(listening, tmp_path)
    clients = [socket.create_connection(listening.getsockname()) for _ in range(5)]
    workers[0].acceptor.close(accept_backlog=True)

    assert len(workers[0].connections) == 5
    close(clients, workers, listening)
