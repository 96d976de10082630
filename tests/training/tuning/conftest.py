"""The search space that the tests of tuning share."""

from __future__ import annotations

from pathlib import Path

import pytest

SPACE = """
architecture: {values: [simple-cnn, tiny-net]}
learning-rate: {low: 1e-3, high: 1e-1, log: true, points: 2}
widths: {values: [[4], [4, 8]]}
"""


@pytest.fixture
def space_file(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return path
