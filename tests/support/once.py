"""Makes what is costly once a run, however many processes (pytest-xdist) the run has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def once_a_run(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Returns a folder that the first test to need it makes, while those of other processes wait.

    Args:
        tmp_path_factory: the session's fixture of this name.
        name: the folder's name, unique in the run.
        make: fills the folder, which is empty; if it fails, the next test to need the folder tries again.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # where each process has a folder of its own, in that of the run
        root = root.parent
    folder, made = root / name, root / f"{name}.made"
    with FileLock(root / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder
