"""Writes into the store: a version of a model, or a single file, appears whole or not at all.

publish: lock the model's folder -> write into a temporary folder in it -> hash -> fsync -> rename to the next version
write_atomically, open_atomically: write a temporary file beside the one it replaces -> fsync -> rename
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from app.store.manifest import MANIFEST_FILE, MODEL_NAME_PATTERN, FileEntry, Manifest
from app.store.regular_files import open_regular

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

TEMPORARY_PREFIX = ".publishing-"
# In small pieces, a thread that hashes would wait for Python's lock at each of them.
_HASHED_AT_ONCE = 8_000_000
_LOCK_FILE = ".lock"  # on Windows, where a folder cannot be opened
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


def hash_file(path: Path) -> FileEntry:
    """Returns a file's sha256 and size in bytes.

    Raises:
        OSError: the file is missing, cannot be read, or is no regular file.
    """
    digest, piece = hashlib.sha256(), bytearray(_HASHED_AT_ONCE)
    with open_regular(path) as file:
        while count := file.readinto(piece):
            digest.update(memoryview(piece)[:count])
        return FileEntry(sha256=digest.hexdigest(), size_bytes=os.fstat(file.fileno()).st_size)


def published_versions(folder: Path) -> list[int]:
    """Returns the versions published in a model's folder, ascending; empty if there are none."""
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.is_dir() and _VERSION.fullmatch(entry.name))


def publish(store_root: Path, name: str, write: Callable[[Path, int], Manifest]) -> Path:
    """Publishes the next version of a model, whole or not at all.

    Args:
        store_root: the folder of the model store. It is created if it is not there.
        name: the model's name.
        write: called with an empty folder and the number of the new version. It writes the artifact's files there and
            returns the manifest without `files`. If it raises, the error is passed on and nothing is published.

    Returns:
        the folder of the new version.

    Raises:
        ValueError: no model can have this name.
        OSError: the disk is full, or the store cannot be written.
    """
    if not re.fullmatch(MODEL_NAME_PATTERN, name):
        raise ValueError(f"{name!r} is no name for a model: use a-z, 0-9, '.', '_' and '-', at most 64 characters.")
    folder = store_root / name
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        # We hold the lock, so a temporary folder was left by a publisher that was killed.
        for leftover in folder.glob(TEMPORARY_PREFIX + "*"):
            shutil.rmtree(leftover, ignore_errors=True)
        version = max(published_versions(folder), default=0) + 1
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=folder))
        try:
            manifest = write(temporary, version)
            files = {path.name: hash_file(path) for path in sorted(temporary.iterdir())}
            manifest = manifest.model_copy(update={"files": files})
            (temporary / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
            temporary.chmod(0o755)  # mkdtemp gives 0o700; the service may run as another user
            for path in temporary.iterdir():
                path.chmod(0o644)
                _fsync(path)
            _fsync(temporary)
            published = folder / str(version)
            temporary.rename(published)
            _fsync(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return published


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks a folder against other writers that lock it. The kernel frees the lock when its holder dies."""
    if sys.platform == "win32":
        with (folder / _LOCK_FILE).open("ab") as file:
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes or replaces a file, as `open_atomically` does, with content that is already in memory.

    Args:
        path: the file. Its folder must exist.
        content: all that the file is to hold.

    Raises:
        OSError: as `open_atomically` raises it.
    """
    with open_atomically(path) as file:
        file.write(content)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Opens a file to write or replace it. A reader sees the old content or the new, never a part, even after a crash.

    The content takes its place when the block ends. If the block raises, the old content stays.

    Every user may read the file, whatever the umask: the service may run as another user than the publisher. A writer
    whose new content depends on the old one must hold `locked`.

    Args:
        path: the file. Its folder must exist.

    Yields:
        the temporary file beside it, which is open for writing and empty.

    Raises:
        OSError: the disk is full, or the folder cannot be written. The old content is still there and no temporary
            file is left; if only syncing the folder failed, the new content is there, but a crash may undo it.
    """
    descriptor, name = tempfile.mkstemp(prefix=_temporary_prefix(path), dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if sys.platform != "win32":
                os.fchmod(file.fileno(), 0o644)  # mkstemp gives 0o600
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync(path.parent)


def delete_leftovers(path: Path) -> None:
    """Deletes the temporary files of writers of a file that were killed. No other writer may be at work on it.

    Args:
        path: the file. Its folder must exist.

    Raises:
        OSError: the folder cannot be read or written.
    """
    for entry in path.parent.iterdir():
        if entry.name.startswith(_temporary_prefix(path)):
            entry.unlink(missing_ok=True)


def _temporary_prefix(path: Path) -> str:
    return f".{path.name}-"


def _fsync(path: Path) -> None:
    if sys.platform == "win32" and path.is_dir():  # which cannot be opened, nor need it be
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
