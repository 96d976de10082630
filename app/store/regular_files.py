"""Opens the files of the store. What is no regular file is refused: a pipe or a device may keep its reader for ever."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Final

_KINDS: Final = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_NON_BLOCKING: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # Windows has only the second


def open_regular(path: Path) -> BufferedReader:
    """Opens a regular file, or a link to one, for reading.

    Raises:
        OSError: there is no such file, it cannot be opened, or it is something else than a regular file.
    """
    _check_regular(path, path.stat())  # before it is opened: opening alone sets some devices in motion
    file = os.fdopen(os.open(path, os.O_RDONLY | _NON_BLOCKING), "rb")
    try:
        _check_regular(path, os.fstat(file.fileno()))  # what was opened may be another one
    except OSError:
        file.close()
        raise
    return file


def read_small(path: Path, *, max_bytes: int) -> bytes:
    """Reads a regular file that cannot be long.

    Args:
        path: the file.
        max_bytes: the most bytes that it may have.

    Raises:
        OSError: as `open_regular` raises it, or the file is longer. Then it has not been read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes or len(content := file.read(max_bytes + 1)) > max_bytes:  # it may grow meanwhile
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, and {max_bytes:,} are the most", str(path))
        return content


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))
