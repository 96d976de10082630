"""A store with pipes, endless files, broken pins or a disk that hangs: each is told, and holds up nothing else."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.models import registry, store_watcher
from app.store.manifest import MANIFEST_FILE, MODEL_FILE, SIGNATURE_FILE
from app.store.model_store import PIN_FILE
from app.store.signing import new_signing_key, read_private_key, sign_version
from tests.support.colours import StartApp, colour_image, export_colours
from tests.support.damaged_versions import edit_manifest
from tests.support.sockets import until

pytestmark = pytest.mark.slow

RED = colour_image("red")
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")


class HungDisk:
    """A folder whose looks hang until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder: Path | None = None
        self.waiting = 0
        self._answers = threading.Event()
        iterdir = Path.iterdir

        def hang(path: Path) -> Iterator[Path]:
            if path == self.folder:
                self.waiting += 1
                self._answers.wait(30)
            return iterdir(path)

        monkeypatch.setattr(Path, "iterdir", hang)

    def recover(self) -> None:
        self.folder = None
        self._answers.set()


@pytest.fixture
def hung_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[HungDisk]:
    monkeypatch.setattr(registry, "LOOK_LIMIT_S", 0.2)
    monkeypatch.setattr(store_watcher, "LOOK_LIMIT_S", 0.2)
    disk = HungDisk(monkeypatch)
    yield disk
    disk.recover()


def reason_of(client: TestClient, name: str = "colours") -> str:
    """Returns why what the store wants served does not serve; an empty text if it does."""
    return client.get(f"/models/{name}").json()["rejected_because"] or ""


def make_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def make_endless(path: Path) -> None:
    """Makes a file of 3 GB that takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(3_000_000_000)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("file_name", "replace", "reason"),
    [
        pytest.param(MANIFEST_FILE, make_pipe, "it is a named pipe, not a regular file", marks=needs_pipes),
        pytest.param(MODEL_FILE, make_pipe, "it is a named pipe, not a regular file", marks=needs_pipes),
        pytest.param(MODEL_FILE, make_folder, "it is a folder, not a regular file"),
        pytest.param(MANIFEST_FILE, make_endless, "it has 3,000,000,000 bytes, and 10,000,000 are the most"),
    ],
)
def test_what_is_no_ordinary_file_is_told_and_the_other_model_serves(
    start_app: StartApp, store_root: Path, file_name: str, replace: Callable[[Path], None], reason: str
) -> None:
    export_colours(store_root, "hues")
    replace(store_root / "hues" / "1" / file_name)
    client = start_app(model_store=store_root, model="hues,colours")

    assert reason in reason_of(client, "hues")
    assert client.post("/models/colours/predict", content=RED).status_code == 200


@needs_pipes
def test_pipe_in_a_new_version_keeps_no_later_one_from_serving(start_app: StartApp, store_root: Path) -> None:
    client = start_app(model_store=store_root, watch_store_s=0.01)
    make_pipe(export_colours(store_root) / MODEL_FILE)
    until(lambda: "named pipe" in reason_of(client))
    export_colours(store_root)
    until(lambda: client.get("/models/colours").json()["version"] == "3")


@needs_pipes
def test_pipe_in_the_place_of_a_file_of_its_own_is_told(start_app: StartApp, tmp_path: Path) -> None:
    make_pipe(tmp_path / "pets.pt")

    assert "it is a named pipe" in start_app(model=str(tmp_path / "pets.pt")).get("/health/ready").json()["detail"]


@pytest.mark.parametrize(
    ("pin", "reason"),
    [
        ("9" * 5000, "it has 5,000 bytes, and 100 are the most"),
        ("9" * 50, "not a version"),
        ("²", "not a version"),
        ("-1", "not a version"),
        ("\0", "not a version"),
        ("", "not a version"),
        ("7", "has no version 7"),
    ],
)
def test_broken_pin_is_told_and_the_other_model_serves(
    start_app: StartApp, store_root: Path, pin: str, reason: str
) -> None:
    export_colours(store_root, "hues")
    (store_root / "hues" / PIN_FILE).write_text(pin, encoding="utf-8")
    client = start_app(model_store=store_root, model="hues,colours")

    assert reason in reason_of(client, "hues")
    assert client.post("/models/colours/predict", content=RED).status_code == 200


def test_folders_that_are_no_versions_are_passed_over(start_app: StartApp, store_root: Path) -> None:
    for name in ("latest", "2.0", "-3", "٣", "9" * 200, "02", ".tmp"):
        (store_root / "colours" / name).mkdir()
    (store_root / "colours" / "5").write_text("a file")

    assert start_app(model_store=store_root).get("/models/colours").json()["version"] == "1"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may look into every folder")
def test_folder_that_may_not_be_looked_into_hides_no_other_model(start_app: StartApp, store_root: Path) -> None:
    (store_root / "secret").mkdir(mode=0)

    assert "Published there: colours." in start_app(model_store=store_root, model="pets").get("/health/ready").text


def test_version_changed_with_equal_size_and_time_is_tried_again(start_app: StartApp, store_root: Path) -> None:
    model_file = store_root / "colours" / "1" / MODEL_FILE
    whole, status = model_file.read_bytes(), model_file.stat()
    model_file.write_bytes(whole[:-1] + b"?")
    os.utime(model_file, ns=(status.st_atime_ns, status.st_mtime_ns))
    client = start_app(model_store=store_root, watch_store_s=0.01)
    assert "not the file that was published" in reason_of(client)

    model_file.write_bytes(whole)
    os.utime(model_file, ns=(status.st_atime_ns, status.st_mtime_ns))

    until(lambda: client.post("/predict", content=RED).status_code == 200)


def test_unsigned_manifest_is_not_parsed_and_no_path_in_it_is_looked_at(
    start_app: StartApp, store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even by the watch, which looks whether a new version's files have all arrived."""
    (tmp_path / "public").write_text(new_signing_key(tmp_path / "private"))
    sign_version(store_root / "colours" / "1", read_private_key(tmp_path / "private"))
    touched: list[str] = []
    stat = Path.stat

    def remember(path: Path, **options: bool) -> os.stat_result:
        touched.append(str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", remember)
    client = start_app(model_store=store_root, watch_store_s=0.01, trusted_keys=tmp_path / "public")
    assert client.post("/predict", content=RED).status_code == 200
    unsigned = export_colours(store_root)
    files = {"absent.bin": {"sha256": "0" * 64, "size_bytes": 1}}
    edit_manifest(unsigned, files=files)
    until(lambda: "is not signed" in reason_of(client))
    make_endless(unsigned / SIGNATURE_FILE)
    until(lambda: "it has 3,000,000,000 bytes, and 64 are the most" in reason_of(client))

    assert not any("absent.bin" in path for path in touched)
    assert client.post("/predict", content=RED).json()["version"] == "1"


def test_disk_that_hangs_is_told_and_holds_up_no_upgrade_of_another_model(
    start_app: StartApp, store_root: Path, hung_disk: HungDisk
) -> None:
    export_colours(store_root, "hues")
    client = start_app(model_store=store_root, model="hues,colours", watch_store_s=0.01)
    hung_disk.folder = store_root / "hues"
    until(lambda: "disk does not answer" in reason_of(client, "hues"))
    export_colours(store_root)
    until(lambda: client.get("/models/colours").json()["version"] == "2")

    assert client.post("/predict", content=RED).json()["model"] == "hues"
    assert hung_disk.waiting == 1  # threads do not pile up
    hung_disk.recover()
    until(lambda: not reason_of(client, "hues"))


def test_disk_that_hangs_does_not_hold_up_the_end(store_root: Path, start_app: StartApp, hung_disk: HungDisk) -> None:
    client = start_app(model_store=store_root, watch_store_s=0.01)
    hung_disk.folder = store_root / "colours"
    until(lambda: hung_disk.waiting > 0)
    began = time.monotonic()
    client.__exit__()

    assert time.monotonic() - began < 5
