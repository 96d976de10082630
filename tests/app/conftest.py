"""Fixtures for tests of the service: stores with the colour model, and applications that serve it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.support.colours import MostlyColour, StartApp, applications, colour_predictor, export_colours
from tests.support.live import SERVICE_PYTHON
from tests.support.twins import add_twin


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio, as the service does."""
    return "asyncio"


@pytest.fixture
def store_root(tmp_path: Path) -> Path:
    """A store of its own with `colours/1`, for tests that damage it."""
    return _with_colours(tmp_path / "store")


@pytest.fixture(scope="session")
def colours_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with `colours/1`, for tests that only read it."""
    return _with_colours(tmp_path_factory.mktemp("colours"))


def _with_colours(root: Path) -> Path:
    folder = export_colours(root)
    if SERVICE_PYTHON:  # which has no torch
        add_twin(folder, colour_predictor(MostlyColour()))
    return root


@pytest.fixture(scope="session")
def twin_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with `colours/1` and its twin."""
    pytest.importorskip("openvino", reason="there is no OpenVINO for this platform")
    root = tmp_path_factory.mktemp("twin")
    add_twin(export_colours(root), colour_predictor(MostlyColour()))
    return root


@pytest.fixture
def start_app(colours_store: Path) -> Iterator[StartApp]:
    """Starts applications of the test's own."""
    with applications(colours_store) as start:
        yield start


@pytest.fixture(scope="module")
def client(colours_store: Path) -> Iterator[TestClient]:
    """An application that serves the colour model, shared by the tests of a file: what they change, they undo."""
    with applications(colours_store) as start:
        yield start()


@pytest.fixture
def own_client(start_app: StartApp) -> TestClient:
    """As `client`, for one test: for those that count, or leave the service otherwise than they found it."""
    return start_app()
