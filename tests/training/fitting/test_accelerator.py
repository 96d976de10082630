"""A device or a precision that the machine does not have is refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.training_runs import digits_config
from training.errors import ConfigError
from training.fitting.accelerator import make_accelerator


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"precision": "fp16"}, "fp16 needs a GPU"), ({"device": "cuda"}, "no CUDA device here")],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU says")
def test_what_the_machine_cannot_do_is_told(settings: dict[str, object], expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=expected):
        make_accelerator(digits_config(tmp_path, **settings))
