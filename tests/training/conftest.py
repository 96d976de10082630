"""The run that the tests of training share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.once import once_a_run
from tests.support.training_runs import train_digits
from training.runs.run_folder import RunFolder


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run, shared: tests read it, and write only what they make anew."""

    def make(folder: Path) -> None:
        train_digits(folder)

    (made,) = (once_a_run(tmp_path_factory, "digits", make) / "runs").iterdir()
    # Evaluating writes its files again, under the eyes of other processes.
    return RunFolder(Path(shutil.copytree(made, tmp_path_factory.mktemp("digits") / made.name)))
