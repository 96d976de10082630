"""A search space is read as it is written, and a mistake in it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.errors import ConfigError
from training.tuning.search_space import load_space, to_overrides


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("lerning_rate: {values: [1]}", "Did you mean 'learning_rate'"),
        ("dropout: {low: 0.5, high: 0.1}", r"dropout: low \(0.5\) must be below high"),
        ("dropout: {low: 0.0, high: 0.1, log: true}", "must be positive"),
        ("dropout: {values: [0.1], low: 0.0, high: 1.0}", "give either values"),
        ("", "names no setting"),
    ],
)
def test_mistakes_in_a_space_are_told(content: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=expected):
        load_space(path)


def test_lists_come_back_as_lists(space_file: Path) -> None:
    space = load_space(space_file)
    assert to_overrides({"widths": "[4, 8]", "architecture": "tiny-net"}, space) == {
        "widths": [4, 8],
        "architecture": "tiny-net",
    }
