"""The ONNX twin computes what the model computes, for any number of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from app.store.manifest import ONNX_FILE
from training.errors import ExportError
from training.export.onnx_twin import verify_onnx, write_onnx
from training.export.predictor import Predictor

pytestmark = pytest.mark.slow

NAMES = ["ant", "bee", "cat"]


def _predictor(*, channels: int = 3, seed: int = 0) -> Predictor:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    return Predictor(model, NAMES, image_size=12, mean=[0.5] * channels, std=[0.2] * channels, temperature=1.7)


def _images(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def onnx_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / ONNX_FILE
    write_onnx(_predictor(), path)
    return path


@pytest.mark.parametrize("count", [1, 2, 7])
def test_twin_computes_classify_for_any_number_of_byte_images(onnx_path: Path, count: int) -> None:
    session = onnxruntime.InferenceSession(str(onnx_path), providers=["CPUExecutionProvider"])
    (found,) = session.run(["probabilities"], {"images": _images(count).numpy()})
    assert found.dtype == np.float32
    assert np.abs(found - _predictor().classify(_images(count)).numpy()).max() < 1e-6
    assert verify_onnx(onnx_path, _predictor(), _images(count)) < 1e-6


def test_twin_is_one_file_that_says_what_it_takes(onnx_path: Path) -> None:
    assert [path.name for path in onnx_path.parent.iterdir()] == [ONNX_FILE]
    session = onnxruntime.InferenceSession(str(onnx_path), providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(uint8)", ["N", 3, 12, 12])
    assert (given.name, given.type, given.shape) == ("probabilities", "tensor(float)", ["N", 3])


def test_grey_model_has_a_twin_that_takes_rgb(tmp_path: Path) -> None:
    write_onnx(_predictor(channels=1), tmp_path / ONNX_FILE)
    assert verify_onnx(tmp_path / ONNX_FILE, _predictor(channels=1), _images(5)) < 1e-6


def test_twin_of_another_model_is_refused(onnx_path: Path) -> None:
    with pytest.raises(ExportError, match="ONNX twin deviates"):
        verify_onnx(onnx_path, _predictor(seed=1), _images(3))


def test_exporting_says_nothing_when_all_is_well(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_onnx(_predictor(), tmp_path / ONNX_FILE)
    assert capfd.readouterr() == ("", "")
