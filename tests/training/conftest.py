from __future__ import annotations

import pytest

from tests.training.trained_run import train_digits
from training.run_folder import RunFolder


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run, shared: tests read it, and write only what they make anew."""
    return train_digits(tmp_path_factory.mktemp("digits"))
