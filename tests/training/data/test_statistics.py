"""Mean and standard deviation are those of all pixels, however they are batched."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tests.support.images import Pixels
from training.data.statistics import LUMA, MIN_STD, channel_statistics
from training.export.predictor import Predictor


def test_streaming_equals_all_at_once(cat: Pixels) -> None:
    images = torch.from_numpy(np.stack([cat[:200, i * 30 : i * 30 + 200] for i in range(7)])).permute(0, 3, 1, 2)
    mean, std = channel_statistics(iter(torch.split(images, 3)))
    expected = images.double() / 255
    torch.testing.assert_close(torch.tensor(mean, dtype=torch.float64), expected.mean((0, 2, 3)))
    torch.testing.assert_close(torch.tensor(std, dtype=torch.float64), expected.std((0, 2, 3), correction=0))


def test_images_of_one_colour_can_be_normalised() -> None:
    assert channel_statistics([torch.full((2, 1, 4, 4), 7, dtype=torch.uint8)]).std == (MIN_STD,)


def test_grey_is_the_predictors() -> None:
    predictor = Predictor(nn.Identity(), ["a"], image_size=4, mean=[0.5], std=[0.5])
    assert torch.equal(predictor.luma.flatten(), torch.tensor(LUMA))
