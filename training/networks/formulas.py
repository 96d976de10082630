"""Computes what size a layer gives and how many numbers it learns, by the formulas of `docs/training.md`.

size, kernel, stride, padding, dilation -> output_size; channels, kernel -> convolution_parameters
"""

from __future__ import annotations


def output_size(size: int, kernel_size: int, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Returns the height (or width) that a convolution or a pooling gives, in pixels.

    Args:
        size: the height (or width) of the input, in pixels.
        kernel_size: the number of pixels that the window covers along one side.
        stride: the number of pixels that the window moves at a time.
        padding: the number of pixels that are added at each border.
        dilation: the distance between two pixels that the window covers, in pixels.
    """
    return (size + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1


def convolution_parameters(
    in_channels: int, out_channels: int, kernel_size: int, *, groups: int = 1, bias: bool = True
) -> int:
    """Returns how many numbers a square 2D convolution learns: a kernel and a bias for each output channel."""
    return out_channels * (in_channels // groups * kernel_size * kernel_size + bias)


def linear_parameters(in_features: int, out_features: int, *, bias: bool = True) -> int:
    """Returns how many numbers a fully connected layer learns."""
    return out_features * (in_features + bias)


def batchnorm_parameters(channels: int) -> int:
    """Returns how many numbers a batch normalisation learns: a scale and a shift for each channel."""
    return 2 * channels
