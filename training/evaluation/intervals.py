"""Computes confidence intervals: how far a figure from a finite number of test images can be trusted.

correct answers, images -> wilson_interval; any statistic of the images -> bootstrap_interval
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

_Z_95 = 1.959963984540054  # the 97.5 % point of the normal distribution
RESAMPLES = 1000


def wilson_interval(correct: int, image_count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a proportion, such as an accuracy.

    Wilson's score interval (1927, https://doi.org/10.1080/01621459.1927.10502953) stays within [0, 1]. It has a width
    even at 0 and 100 %, where the usual p +- 1.96 s has none.

    Args:
        correct: how many of the images were classified rightly.
        image_count: the number of images, at least 1.

    Raises:
        ValueError: there are no images, or more correct answers than images.
    """
    if not 0 <= correct <= image_count or image_count == 0:
        raise ValueError(f"{correct} of {image_count} is no proportion.")
    proportion = correct / image_count
    spread = _Z_95**2 / image_count
    centre = (proportion + spread / 2) / (1 + spread)
    half_width = (
        _Z_95 / (1 + spread) * math.sqrt(proportion * (1 - proportion) / image_count + spread / 4 / image_count)
    )
    return max(0.0, centre - half_width), min(1.0, centre + half_width)


def bootstrap_interval(
    statistic: Callable[[npt.NDArray[np.intp]], float], image_count: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Returns the 95 % percentile interval of a statistic for which there is no formula (Efron 1979).

    Args:
        statistic: computes the figure for the positions of drawn images, `(image_count,)`, which may repeat.
        image_count: the number of images.
        resamples: the number of draws.
        seed: the seed of the draws, so that the same predictions give the same interval.
    """
    generator = np.random.default_rng(seed)
    values = [statistic(generator.integers(0, image_count, image_count)) for _ in range(resamples)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
