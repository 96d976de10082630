"""The package `pictures` without its report: layers, filters, feature maps, Grad-CAM and the commands that draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import training.__main__ as command_line
from training.errors import DataError, NotDrawableError
from training.export.import_pretrained import GOLDEN_FOLDER
from training.export.predictor import Predictor
from training.export.publish import run_predictor
from training.pictures.feature_maps import as_pictures, first_feature_maps, first_filters
from training.pictures.grad_cam import grad_cam, overlay
from training.pictures.layers import layer_table, network_input, run_layers
from training.pictures.visualize import read_image
from training.runs.run_folder import RunFolder


def _predictor(model: nn.Module, *, size: int = 12) -> Predictor:
    return Predictor(model, ["a", "b"], image_size=size, mean=[0.5] * 3, std=[0.25] * 3)


def _cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 36, 2)
    )


def _image(size: int = 12) -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def test_network_input_is_normalised_as_the_predictor_defines_it() -> None:
    expected = (_image() / 255 - 0.5) / 0.25
    assert torch.allclose(network_input(_predictor(_cnn()), _image()), expected, atol=1e-6)


def test_layer_table_has_shapes_and_parameter_counts_in_calling_order() -> None:
    predictor = _predictor(_cnn())
    lines = layer_table(run_layers(predictor, _image()), 404).splitlines()
    assert [line.split()[1] for line in lines[1:-1]] == ["Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear"]
    assert "4 x 12 x 12" in lines[1]
    assert lines[1].endswith("112")  # 4 * (3 * 3 * 3 + 1)
    assert "4 x 6 x 6" in lines[3]
    assert lines[-1].split() == ["total", "404"]


def test_maps_before_an_activation_that_works_in_place_keep_their_negative_values() -> None:
    convolution, activation, pooling = first_feature_maps(run_layers(_predictor(_cnn()), _image()))
    assert (convolution.kind, activation.kind, pooling.kind) == ("Conv2d", "ReLU", "MaxPool2d")
    assert float(convolution.output.min()) < 0
    assert torch.equal(activation.output, convolution.output.clamp(min=0))
    assert torch.equal(pooling.output, nn.functional.max_pool2d(activation.output, 2))


def test_filters_are_scaled_so_that_grey_is_zero() -> None:
    name, filters = first_filters(_cnn())
    pictures = as_pictures(filters)
    assert name == "0"
    assert pictures.shape == (4, 3, 3, 3)
    assert float(pictures.min()) >= 0
    assert float(pictures.max()) <= 1
    assert torch.equal(as_pictures(torch.zeros(2, 3, 5, 5)), torch.full((2, 5, 5, 3), 0.5))
    assert as_pictures(torch.ones(2, 8, 3, 3)).shape == (2, 3, 3)


def test_network_without_convolutions_is_told() -> None:
    predictor = _predictor(nn.Sequential(nn.Flatten(), nn.Linear(3 * 144, 2)))
    for draw in (
        lambda: first_filters(predictor.model),
        lambda: first_feature_maps(run_layers(predictor, _image())),
        lambda: grad_cam(predictor, _image(), 0),
    ):
        with pytest.raises(NotDrawableError, match="no convolution"):
            draw()


class CornerNet(nn.Module):
    """Its class 0 is red at the top left, by construction: the one place where Grad-CAM may be warm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 1, 1, bias=False)
        self.convolution.weight.data = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
        self.convolution.weight.requires_grad_(False)  # as in a frozen backbone

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        red = torch.relu_(self.convolution(x)).mean(dim=(1, 2, 3))
        return torch.stack([red, -red], dim=1)


def test_grad_cam_is_warm_where_the_class_is_and_cold_there_for_its_opposite() -> None:
    image = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    image[0, 0, :6, :6] = 255
    predictor = _predictor(CornerNet())
    heat = grad_cam(predictor, image, 0)
    assert float(heat[:6, :6].min()) == 1.0
    assert float(heat[6:].max()) == 0.0
    assert float(grad_cam(predictor, image, 1)[:6, :6].max()) == 0.0
    picture = overlay(image[0], heat)
    assert picture.shape == (12, 12, 3)
    assert float(picture.min()) >= 0
    assert float(picture.max()) <= 1


def test_grad_cam_leaves_the_network_as_it_was() -> None:
    predictor = _predictor(_cnn())
    before = predictor.classify(_image())
    grad_cam(predictor, _image(), 1)
    assert torch.equal(predictor.classify(_image()), before)
    assert all(parameter.grad is None for parameter in predictor.parameters())
    assert not any(module._forward_hooks for module in predictor.modules())


def test_commands_write_pictures(digits_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, image, output = str(digits_run.path), str(GOLDEN_FOLDER / "cat.jpg"), ["--output", str(tmp_path)]
    command_line.main(["visualize", "filters", run, *output])
    command_line.main(["visualize", "features", run, image, *output])
    command_line.main(["visualize", "grad-cam", run, image, *output])
    command_line.main(["visualize", "augmentations", run, "--images", "2", "--versions", "3", *output])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "augmentations.png",
        "features-1-conv2d.png",
        "features-2-maxpool2d.png",
        "features-3-relu.png",
        "filters.png",
        "grad-cam-cat.png",
    ]
    for path in tmp_path.iterdir():
        assert np.asarray(Image.open(path).convert("L")).std() > 5, path  # something is drawn
    capsys.readouterr()
    command_line.main(["visualize", "layers", run])
    total = sum(parameter.numel() for parameter in run_predictor(digits_run).model.parameters())
    assert capsys.readouterr().out.split()[-1] == f"{total:,}"


def test_image_that_cannot_be_read_is_named(digits_run: RunFolder, tmp_path: Path) -> None:
    predictor = run_predictor(digits_run)
    with pytest.raises(DataError, match=r"none\.jpg cannot be read"):
        read_image(tmp_path / "none.jpg", predictor)
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"text\.jpg: "):
        read_image(tmp_path / "text.jpg", predictor)
