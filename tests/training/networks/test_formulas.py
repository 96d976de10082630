"""The formulas of docs/training.md agree with torch's layers."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from training.networks import formulas
from training.networks.formulas import batchnorm_parameters, convolution_parameters, linear_parameters, output_size

GUIDE = Path(__file__).parents[3] / "docs" / "training.md"


def _count(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


@given(
    size=st.integers(8, 40),
    kernel_size=st.integers(1, 7),
    stride=st.integers(1, 4),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 3),
)
def test_output_size_is_that_of_a_convolution(
    size: int, kernel_size: int, stride: int, padding: int, dilation: int
) -> None:
    expected = output_size(size, kernel_size, stride=stride, padding=padding, dilation=dilation)
    if expected < 1:
        return
    layer = nn.Conv2d(1, 1, kernel_size, stride=stride, padding=padding, dilation=dilation)
    assert layer(torch.zeros(1, 1, size, size + 5)).shape[2] == expected


@pytest.mark.parametrize(("size", "kernel_size", "stride"), [(28, 2, 2), (7, 2, 2), (13, 3, 2), (9, 3, 1)])
def test_output_size_is_that_of_a_pooling(size: int, kernel_size: int, stride: int) -> None:
    pooled = nn.MaxPool2d(kernel_size, stride)(torch.zeros(1, 1, size, size))
    assert pooled.shape[-1] == output_size(size, kernel_size, stride=stride)


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "kernel_size", "groups", "bias"),
    [(3, 16, 3, 1, True), (16, 32, 5, 1, False), (8, 8, 3, 8, True)],
)
def test_parameter_counts_are_those_of_the_layers(
    in_channels: int, out_channels: int, kernel_size: int, groups: int, bias: bool
) -> None:
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, groups=groups, bias=bias)
    assert convolution_parameters(in_channels, out_channels, kernel_size, groups=groups, bias=bias) == _count(layer)
    assert linear_parameters(in_channels, out_channels, bias=bias) == _count(nn.Linear(in_channels, out_channels, bias))
    assert batchnorm_parameters(out_channels) == _count(nn.BatchNorm2d(out_channels))


def test_guide_shows_the_formulas_that_are_tested_here() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    for function in (output_size, convolution_parameters, linear_parameters, batchnorm_parameters):
        (formula,) = re.findall(r"return (.+)", inspect.getsource(function))
        assert formula in guide, f"docs/training.md lacks `{formula}` of {function.__name__}"
    examples = re.findall(r"`((?:output_size|\w+_parameters)\([^`]*\)) = ([\d,]+)`", guide)
    assert len(examples) >= 5
    for call, value in examples:
        assert eval(call, vars(formulas)) == int(value.replace(",", "")), call
