"""The service is ready when all its workers have started, and stays so when one dies."""

from __future__ import annotations

from pathlib import Path

from starlette.testclient import TestClient

from app.system.worker_board import WorkerBoard, WorkerPlace


def test_service_is_ready_when_all_workers_have_started_and_stays_so_when_one_dies(
    own_client: TestClient, tmp_path: Path
) -> None:
    board = WorkerBoard.create(tmp_path / WorkerBoard.FILE_NAME, workers=2)
    service, sibling = own_client.app.state.service, board.status_of(1)  # type: ignore[attr-defined]
    service.place = WorkerPlace(tmp_path, 2, 0, board)

    def ready() -> bool:
        return own_client.get("/health/ready").status_code == 200

    assert not ready()
    sibling.publish(accepting=False, ready=False, connections=0)
    assert not ready()
    sibling.publish(accepting=True, ready=True, connections=0)
    assert ready()
    sibling.clear()
    assert ready()
    sibling.publish(accepting=True, ready=False, connections=0)
    assert not ready()


def test_service_is_ready_with_the_workers_that_it_has_when_one_died_at_its_start(
    own_client: TestClient, tmp_path: Path
) -> None:
    board = WorkerBoard.create(tmp_path / WorkerBoard.FILE_NAME, workers=2)
    own_client.app.state.service.place = WorkerPlace(tmp_path, 2, 0, board)  # type: ignore[attr-defined]
    assert own_client.get("/health/ready").status_code == 503
    board.restarts += 1

    assert own_client.get("/health/ready").status_code == 200
