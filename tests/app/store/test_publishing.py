"""A file is replaced whole or not at all."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from app.store.publishing import write_atomically


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
