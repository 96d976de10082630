"""A run's folder is made, or what is in the way is named; the last run is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.training_runs import digits_config, train_digits
from training.errors import RunError
from training.runs.run_folder import create_run, find_run


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"cannot be made in .*file.*Make that folder writable, or choose another"):
        create_run(digits_config(tmp_path, runs=tmp_path / "file"))


@pytest.mark.slow
def test_last_run_that_has_weights_is_found_behind_one_that_has_none(tmp_path: Path) -> None:
    run = train_digits(tmp_path, epochs=1)
    unfinished = tmp_path / "runs" / "later"
    unfinished.mkdir()
    (unfinished / "config.yaml").write_bytes(run.config_file.read_bytes())
    assert find_run("last", runs=tmp_path / "runs", trained=True) == run
    assert find_run("last", runs=tmp_path / "runs").path == unfinished
