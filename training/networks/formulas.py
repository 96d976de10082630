"""The arithmetic of a layer: what size comes out, and how many numbers are learned. `docs/training.md` explains it.

size, kernel, stride, padding, dilation -> output_size; channels, kernel -> convolution_parameters
"""

from __future__ import annotations


def output_size(size: int, kernel_size: int, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Returns the height (or width) that a convolution or a pooling gives, in pixels.

    Args:
        size: of the input.
        kernel_size: how many pixels the window covers.
        stride: how far it moves at a time.
        padding: pixels added at each border.
        dilation: distance between the pixels that it covers.
    """
    return (size + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1


def convolution_parameters(
    in_channels: int, out_channels: int, kernel_size: int, *, groups: int = 1, bias: bool = True
) -> int:
    """Returns how many numbers a square 2D convolution learns: a kernel per output channel, and a bias for each."""
    return out_channels * (in_channels // groups * kernel_size * kernel_size + bias)


def linear_parameters(in_features: int, out_features: int, *, bias: bool = True) -> int:
    """Returns how many numbers a fully connected layer learns."""
    return out_features * (in_features + bias)


def batchnorm_parameters(channels: int) -> int:
    """Returns how many numbers a batch normalisation learns: a scale and a shift per channel."""
    return 2 * channels
