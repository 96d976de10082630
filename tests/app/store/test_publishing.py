"""A version is published, and a file is replaced, whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from app.store.manifest import MODEL_FILE, Manifest
from app.store.model_store import verify_files
from app.store.publishing import (
    TEMPORARY_PREFIX,
    delete_leftovers,
    hash_file,
    open_atomically,
    publish,
    published_versions,
    write_atomically,
)
from tests.support.manifests import manifest, write_files

REPOSITORY = Path(__file__).parents[3]


def test_publishing_gives_the_next_version_with_hashes_of_every_file(tmp_path: Path) -> None:
    first, second = (publish(tmp_path, "digits", write_files) for _ in range(2))
    assert (first, second) == (tmp_path / "digits" / "1", tmp_path / "digits" / "2")
    published = Manifest.read(second)
    assert published.version == 2
    assert published.files.keys() == {MODEL_FILE, "model.onnx"}
    assert published.files[MODEL_FILE] == hash_file(second / MODEL_FILE)
    verify_files(second, published)
    assert published.model_copy(update={"files": {}}) == manifest(version=2)


def test_versions_are_compared_as_numbers(tmp_path: Path) -> None:
    for name in ("9", "10", "2", "007", "0", "-1", "1.5", "latest", TEMPORARY_PREFIX + "x"):
        (tmp_path / "digits" / name).mkdir(parents=True)
    (tmp_path / "digits" / "11").write_text("a file, not a version")
    assert published_versions(tmp_path / "digits") == [2, 9, 10]
    assert published_versions(tmp_path / "none") == []


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failing_publisher_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    def write(folder: Path, version: int) -> Manifest:
        write_files(folder, version)
        raise failure

    publish(tmp_path, "digits", write_files)
    with pytest.raises(failure):
        publish(tmp_path, "digits", write)
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1"]
    assert publish(tmp_path, "digits", write_files).name == "2"


_PUBLISH_AND_WAIT = """
import sys
from pathlib import Path
from app.store.publishing import publish

def write(folder, version):
    (folder / "model.pt").write_bytes(b"half of it")
    print(folder.name, flush=True)
    sys.stdin.read()

publish(Path(sys.argv[1]), "digits", write)
"""


@pytest.mark.slow
def test_a_killed_publisher_leaves_nothing_to_see_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    publish(tmp_path, "digits", write_files)
    with subprocess.Popen(
        [sys.executable, "-c", _PUBLISH_AND_WAIT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    ) as publisher:
        assert publisher.stdout
        leftover = publisher.stdout.readline().strip()
        publisher.send_signal(signal.SIGKILL)
        publisher.wait()
    assert (tmp_path / "digits" / leftover / MODEL_FILE).exists()
    assert published_versions(tmp_path / "digits") == [1]
    assert publish(tmp_path, "digits", write_files).name == "2"
    assert sorted(path.name for path in (tmp_path / "digits").iterdir()) == ["1", "2"]


def _publish_many(store_root: Path, count: int) -> None:
    for _ in range(count):
        publish(store_root, "digits", write_files)


@pytest.mark.slow
def test_publishers_at_once_get_different_versions_and_readers_see_only_whole_ones(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    publishers = [context.Process(target=_publish_many, args=(tmp_path, 20)) for _ in range(2)]
    for publisher in publishers:
        publisher.start()
    seen: set[int] = set()
    while any(publisher.is_alive() for publisher in publishers):
        for version in published_versions(tmp_path / "digits"):
            folder = tmp_path / "digits" / str(version)
            verify_files(folder, Manifest.read(folder))
            seen.add(version)
    for publisher in publishers:
        publisher.join()
    assert [publisher.exitcode for publisher in publishers] == [0, 0]
    assert published_versions(tmp_path / "digits") == list(range(1, 41))
    assert len(seen) > 1, "the reader was never there in time"


def test_a_reader_on_another_thread_never_sees_half_a_version(tmp_path: Path) -> None:
    publish(tmp_path, "digits", write_files)
    at_half, go_on = threading.Event(), threading.Event()

    def write(folder: Path, version: int) -> Manifest:
        (folder / MODEL_FILE).write_bytes(b"half")
        at_half.set()
        assert go_on.wait(30)
        return write_files(folder, version)

    publisher = threading.Thread(target=publish, args=(tmp_path, "digits", write))
    publisher.start()
    assert at_half.wait(30)
    assert published_versions(tmp_path / "digits") == [1]
    go_on.set()
    publisher.join()
    assert published_versions(tmp_path / "digits") == [1, 2]


def test_other_users_can_read_what_was_published(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    previous = os.umask(0o077)
    try:
        folder = publish(tmp_path, "digits", write_files)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}


@pytest.mark.parametrize("name", ["", "..", "../evil", "a/b", ".hidden", "Cats", "kätzchen", "a" * 65, "cats\n", "-x"])
def test_a_name_that_is_no_models_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    store_root = tmp_path / "store"
    with pytest.raises(ValueError, match="is no name for a model"):
        publish(store_root, name, write_files)
    assert not store_root.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(OSError, match="store"):
        publish(tmp_path / "store", "digits", write_files)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file in a folder of its own, which holds `old`."""
    file = tmp_path / "pinned"
    file.write_bytes(b"old")
    return file


def test_content_is_replaced_and_nothing_is_left_beside_it(file: Path) -> None:
    write_atomically(file, b"new")

    assert file.read_bytes() == b"new"
    assert list(file.parent.iterdir()) == [file]


def test_file_that_was_not_there_is_made(tmp_path: Path) -> None:
    write_atomically(tmp_path / "changes.json", b"{}")

    assert (tmp_path / "changes.json").read_bytes() == b"{}"


@pytest.mark.parametrize("step", ["fchmod", "fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError("No space left on device"), KeyboardInterrupt()], ids=["disk", "ctrl_c"])
def test_write_that_fails_in_the_middle_leaves_the_old_content_and_nothing_else(
    file: Path, step: str, failure: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(Path if step == "replace" else os, step, fail)
    with pytest.raises(type(failure)):
        write_atomically(file, b"new")

    assert file.read_bytes() == b"old"
    assert list(file.parent.iterdir()) == [file]


def test_block_that_raises_leaves_the_old_content_and_nothing_else(file: Path) -> None:
    with suppress(RuntimeError), open_atomically(file) as temporary:
        temporary.write(b"ne")
        raise RuntimeError

    assert file.read_bytes() == b"old"
    assert list(file.parent.iterdir()) == [file]


def test_leftovers_of_a_writer_that_was_killed_are_deleted_and_no_other_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed, suppress(KeyboardInterrupt), open_atomically(file):
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        raise KeyboardInterrupt
    others = {file, file.with_name("pinned-too"), file.with_name(".pinned2-a")}
    for other in others - {file}:
        other.touch()
    assert len(list(file.parent.iterdir())) == len(others) + 1
    delete_leftovers(file)

    assert set(file.parent.iterdir()) == others
    assert file.read_bytes() == b"old"


def test_content_is_on_the_disk_before_it_has_its_name_and_the_name_after(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor: int) -> None:
        steps.append(f"fsync {'folder' if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 'file'}")
        fsync(descriptor)

    def watched_replace(temporary: Path, target: Path) -> Path:
        steps.append("replace")
        return replace(temporary, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    write_atomically(file, b"new")

    assert steps == ["fsync file", "replace", "fsync folder"]


def test_other_users_can_read_the_file_whatever_the_umask(file: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(file, b"new")
    finally:
        os.umask(before)

    assert file.stat().st_mode & 0o777 == 0o644


def test_readers_and_writers_at_once_never_see_half(file: Path) -> None:
    contents = [bytes([letter]) * 200_000 for letter in b"abc"]
    write_atomically(file, contents[0])
    ended = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not ended.is_set():
            seen.add(file.read_bytes())

    def write(content: bytes) -> None:
        for _ in range(30):
            write_atomically(file, content)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    ended.set()
    reader.join()

    assert seen
    assert seen <= set(contents)
    assert list(file.parent.iterdir()) == [file]
