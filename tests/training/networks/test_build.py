"""The package `networks`: every architecture gives logits, can be scripted, and refuses what does not fit."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from training.config.file import parse_config
from training.config.settings import TrainConfig
from training.errors import ConfigError
from training.networks.build import build_model, pretrained_statistics


def _config(**settings: object) -> TrainConfig:
    return parse_config({"data": "digits", "pretrained": False, **settings}, origin="The test")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "image_size", "channels"),
    [
        ("simple-cnn", 28, 1),
        ("simple-cnn", 31, 3),
        ("simple-cnn", 4, 1),
        ("tiny-net", 9, 1),
        ("gap-cnn", 20, 3),
        ("vgg16-bn", 33, 3),
        ("efficientnet-lite0", 64, 1),
        ("torchvision/resnet18", 32, 1),
        ("torchvision/squeezenet1_1", 64, 3),
        ("torchvision/googlenet", 64, 3),
        ("timm/resnet10t", 32, 1),
        ("timm/vit_tiny_patch16_224", 48, 3),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_scripted_network_gives_the_eager_logits(architecture: str, image_size: int, channels: int) -> None:
    torch.manual_seed(0)
    model = build_model(_config(architecture=architecture, image_size=image_size, channels=channels), 7).eval()
    images = torch.randn(2, channels, image_size, image_size)
    with torch.no_grad():
        logits = model(images)
        scripted = torch.jit.script(model)(images)
    assert logits.shape == (2, 7)
    torch.testing.assert_close(scripted, logits, rtol=1e-4, atol=1e-4)


def test_simple_cnn_is_as_described() -> None:
    model = build_model(_config(architecture="simple-cnn", image_size=28, channels=1), 10)
    kinds = [type(layer) for layer in model.get_submodule("blocks.0").children()]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.ReLU, nn.Dropout2d]
    widths = [layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert widths == [16, 32, 64]
    head = model.get_submodule("head.hidden")
    assert isinstance(head, nn.Linear)
    assert head.in_features == 64 * 3 * 3


def test_widths_depth_and_batchnorm_are_configurable() -> None:
    model = build_model(
        _config(architecture="simple-cnn", image_size=16, widths=[4, 8], convolutions_per_block=2, batchnorm=False), 3
    )
    widths = [layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert widths == [4, 4, 8, 8]
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "vgg16-bn"])
def test_vgg16_is_torchvisions_to_the_last_weight(name: str) -> None:
    reference = torchvision.models.get_model(name.replace("-", "_"), weights=None).eval()
    model = build_model(_config(architecture=name, image_size=64), 1000).eval()
    model.load_state_dict(reference.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference(images))


@pytest.mark.parametrize("scheme", ["kaiming", "xavier"])
def test_initialisation_draws_weights_of_the_right_spread(scheme: str) -> None:
    torch.manual_seed(0)
    model = build_model(_config(architecture="simple-cnn", image_size=28, initialisation=scheme), 10)
    convolution = model.get_submodule("blocks.2.convolution1")
    assert isinstance(convolution, nn.Conv2d)
    fan_in, fan_out = 32 * 9, 64 * 9
    expected = (2 / fan_out) ** 0.5 if scheme == "kaiming" else (2 / (fan_in + fan_out)) ** 0.5
    assert convolution.weight.std().item() == pytest.approx(expected, rel=0.05)


def test_pretrained_backbone_is_kept_and_its_statistics_are_known() -> None:
    from training.networks.efficientnet_lite0 import efficientnet_lite0

    config = parse_config({"data": "photos", "image_size": 64}, origin="The test")
    model = build_model(config, 5)
    pretrained = efficientnet_lite0().state_dict()
    backbone = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("classifier")}
    assert len(backbone) == len(pretrained) - 2
    assert all(torch.equal(tensor, pretrained[name]) for name, tensor in backbone.items())
    assert pretrained_statistics(config).mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"architecture": "simple-cmn"}, "Did you mean 'simple-cnn'"),
        ({"architecture": "resnet18"}, "Did you mean 'torchvision/resnet18'"),
        ({"architecture": "torchvision/resnet19"}, "Did you mean 'resnet18'"),
        ({"architecture": "timm/resnet10"}, "timm has no model 'resnet10'. Did you mean"),
        ({"architecture": "vgg16", "image_size": 16}, "vgg16 does not work at image_size 16"),
        ({"architecture": "simple-cnn", "pretrained": True}, "no pretrained weights here"),
        ({"architecture": "efficientnet-lite0", "pretrained": True, "channels": 1}, "set channels: 3"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_way_out(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        build_model(_config(**settings), 3)
