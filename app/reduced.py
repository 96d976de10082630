"""A JPEG decoded at a reduced scale -> the crop that decoding it in full would have given, as nearly as can be known.

resize_and_crop -> (decoded at 1/2, 1/4 or 1/8) -> weights of each axis -> columns -> rows

libjpeg's reduced decoding gives means of s x s pixels (jidctred.c). To filter those means with the triangle once more
blurs: the means are a filter too. So the weights are solved for, in least squares: the sum of weighted means that is
nearest to the triangle over the pixels themselves. Measured for 12 MP in docs/performance.md.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

# How alike neighbouring pixels of photos are: the means of `_from_means` hold for pixels that correlate so. Between 0.9
# and 0.97 nothing measurable changes.
_CORRELATION: Final = 0.97
# Output pixels computed by one matrix product: wider blocks multiply more zeros, narrower ones call more often.
_BLOCK: Final = 8

Floats = npt.NDArray[np.float64]


class AxisWeights:
    """How the crop's pixels come from the means along one axis.

    Attributes:
        first: the first mean that is needed.
        last: the one behind the last.
        blocks: (first mean, counted from `first`; one behind the last; first output; weights `(outputs, means)`).
    """

    def __init__(self, first_of: npt.NDArray[np.int64], weights: Floats) -> None:
        means = weights.shape[1]
        self.first, self.last = int(first_of[0]), int(first_of[-1]) + means
        self.blocks: list[tuple[int, int, int, torch.Tensor]] = []
        for output in range(0, len(weights), _BLOCK):
            starts = first_of[output : output + _BLOCK]
            matrix = np.zeros((len(starts), starts[-1] - starts[0] + means), np.float32)
            for row, start in enumerate(starts - starts[0]):
                matrix[row, start : start + means] = weights[output + row]
            begin = int(starts[0]) - self.first
            self.blocks.append((begin, begin + matrix.shape[1], output, torch.from_numpy(matrix)))

    def apply(self, means: torch.Tensor) -> torch.Tensor:
        """Returns `(outputs, N)` from `(last - first, N)`."""
        outputs = self.blocks[-1][2] + len(self.blocks[-1][3])
        resized = means.new_empty((outputs, means.shape[1]))
        for first, last, output, weights in self.blocks:
            torch.mm(weights, means[first:last], out=resized[output : output + len(weights)])
        return resized


@lru_cache(maxsize=128)  # pictures of one camera share their sizes; 60 kB and 0.3 ms each at 12 MP
def axis_weights(
    start: float, end: float, crop_size: int, length: int, scale: int, shift: int, count: int
) -> AxisWeights:
    """Returns the weights along one axis.

    Args:
        start: where the crop begins, in pixels of full scale.
        end: where it ends.
        crop_size: how many pixels it becomes.
        length: of the image, at full scale.
        scale: how many pixels a mean covers.
        shift: how many pixels the first mean begins before the image.
        count: how many means there are.
    """
    spacing = (end - start) / crop_size
    support = max(spacing, 1.0)
    centres = start + (np.arange(crop_size) + 0.5) * spacing  # (S,)
    taps = min(int(np.ceil(2 * support / scale)) + 3, count)  # all that the triangle touches, and one on either side
    first_of = np.floor((centres - support + shift) / scale).astype(np.int64) - 1
    first_of = first_of.clip(0, count - taps)
    pixels = first_of[:, None] * scale - shift + np.arange(taps * scale)  # (S, taps x scale)
    triangle = np.maximum(1 - np.abs((pixels + 0.5 - centres[:, None]) / support), 0)
    triangle[(pixels < 0) | (pixels >= length)] = 0  # as Pillow and `Predictor` end theirs at the border
    weights = triangle @ _from_means(scale, taps).T
    return AxisWeights(first_of, weights / weights.sum(axis=1, keepdims=True))


@lru_cache(maxsize=128)
def _from_means(scale: int, taps: int) -> Floats:
    """Returns what turns weights over pixels into the best ones over their means, `(taps, taps x scale)`.

    Of pixels x with the covariance C, the best linear estimate of K x from the means D x is K C D' (D C D')^-1 D x.
    """
    distance = np.abs(np.subtract.outer(np.arange(taps * scale), np.arange(taps * scale)))
    of_means = (_CORRELATION**distance).reshape(taps, scale, taps * scale).mean(axis=1)  # D C
    return np.linalg.solve(of_means.reshape(taps, taps, scale).mean(axis=2), of_means)


def resize_means(pixels: Image.Image, rows: AxisWeights, columns: AxisWeights) -> torch.Tensor:
    """Computes the crop.

    Returns:
        uint8 `(3, S, S)`, in channels-last memory.
    """
    window = pixels.crop((columns.first, rows.first, columns.last, rows.last))
    turned = np.asarray(window.transpose(Image.Transpose.TRANSPOSE))  # (W, H, 3): the axis to be weighed comes first
    means = torch.from_numpy(turned.astype(np.float32)).view(window.width, window.height * 3)
    strip = columns.apply(means)  # (S, H x 3)
    # The definition rounds between the axes. Doing without is closer to the truth, but farther from the definition:
    # where a picture is nearly even, both round the same way.
    strip = strip.add_(0.5).floor_().clamp_(0, 255).view(-1, window.height, 3)
    crop = rows.apply(strip.permute(1, 2, 0).reshape(window.height, -1)).view(-1, 3, len(strip))  # (S, 3, S)
    rounded = crop.add_(0.5).clamp_(0, 255).to(torch.uint8)
    return rounded.permute(0, 2, 1).contiguous().permute(2, 0, 1)
