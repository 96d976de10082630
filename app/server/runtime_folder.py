"""Makes the private folder that the workers of a service share, and removes those that killed services have left."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from app.errors import PredictorError

if sys.platform != "win32":
    import fcntl

_FOLDER_PREFIX: Final = "image-predictor-"
_MIN_STALE_S: Final = 60.0


class RuntimeFolderError(PredictorError):
    """There is no place for the files that workers share."""


@contextlib.contextmanager
def runtime_folder() -> Iterator[Path]:
    """Makes a private folder for this run of the service, and removes it afterwards.

    Folders that killed services have left are removed too. A lock in each folder tells whether its service lives: the
    lock ends with the last process that holds it. Containers that share a folder for temporary files see each other's
    locks, but not each other's process ids.

    Raises:
        RuntimeFolderError: no folder can be made.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))
    except OSError:  # a container with a read-only file system still has /dev/shm
        try:
            folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir="/dev/shm"))
        except OSError as error:
            raise RuntimeFolderError(
                "No folder for temporary files can be written: neither the usual ones nor /dev/shm. Set TMPDIR to one."
            ) from error
    with (folder / "lock").open("w") as lock:
        if sys.platform != "win32":
            fcntl.flock(lock, fcntl.LOCK_EX)
            _remove_stale_folders(folder.parent)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_stale_folders(parent: Path) -> None:
    if sys.platform == "win32":
        return
    for path in parent.glob(f"{_FOLDER_PREFIX}*/lock"):
        with contextlib.suppress(OSError), path.open("r+") as lock:  # it is another user's, or has just been removed
            if time.time() - path.stat().st_mtime < _MIN_STALE_S:  # it may not be locked yet
                continue
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent, ignore_errors=True)
