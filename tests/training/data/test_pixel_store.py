"""Batches hold the service's pixels, whether kept or decoded anew; seeds shuffle them, and processes share them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from app.images.decode import MIN_DETAIL, decode
from app.images.geometry import Geometry
from app.images.resize import resize_and_crop
from tests.support.images import Pixels
from training.data.pixel_store import PixelStore, as_planes, epoch_order
from training.data.sources import ArraySource, digits_source, folder_source
from training.export.predictor import Predictor


def _store(*, in_memory: bool, channels: int = 3) -> PixelStore:
    return PixelStore(digits_source(), range(40), resize_size=12, image_size=12, channels=channels, in_memory=in_memory)


@pytest.mark.slow
def test_memory_and_workers_give_the_same_batches() -> None:
    order = epoch_order(40, batch_size=16, seed=0, epoch=0)
    kept = list(_store(in_memory=True).batches(order, workers=0))
    decoded = list(_store(in_memory=False).batches(order, workers=2))
    for (images, labels), (other_images, other_labels) in zip(kept, decoded, strict=True):
        torch.testing.assert_close(images, other_images, rtol=0, atol=0)
        torch.testing.assert_close(labels, other_labels, rtol=0, atol=0)


@pytest.mark.parametrize(("resize_size", "image_size"), [(256, 224), (64, 56), (31, 31), (40, 7)])
@pytest.mark.parametrize("shape", [(300, 451), (451, 300), (300, 90), (97, 50), (49, 84), (20, 21), (7, 300)])
def test_training_sees_the_predictors_pixels_to_the_bit(
    cat: Pixels, shape: tuple[int, int], resize_size: int, image_size: int
) -> None:
    pixels = np.ascontiguousarray(np.resize(cat, (1, *shape, 3)))
    source = ArraySource(("cat",), pixels, (0,), (None,))
    trained, _ = PixelStore(source, [0], resize_size=resize_size, image_size=image_size, channels=3, in_memory=False)[0]

    predictor = Predictor(
        nn.Identity(), ["cat"], image_size=image_size, resize_size=resize_size, mean=[0.5] * 3, std=[0.5] * 3
    )
    expected = predictor.resize_and_crop(torch.from_numpy(pixels).permute(0, 3, 1, 2))[0]
    torch.testing.assert_close(trained, expected, rtol=0, atol=0)


@pytest.mark.parametrize("shorter_side", [200, 300])  # decoded in full by the service, and at half scale
def test_training_sees_a_photo_as_the_service_does(tmp_path: Path, cat: Pixels, shorter_side: int) -> None:
    for class_name in ("cat", "dog"):
        (tmp_path / class_name).mkdir()
        size = (shorter_side * 3 // 2, shorter_side)
        Image.fromarray(cat).resize(size).save(tmp_path / class_name / "photo.jpg", quality=95)
    source = folder_source(tmp_path)
    trained, _ = PixelStore(source, [0], resize_size=32, image_size=28, channels=3, in_memory=False)[0]

    served = decode(source.encoded(0), min_shorter_side=MIN_DETAIL * 32)
    assert served.scale == shorter_side // 150
    expected = as_planes(resize_and_crop(served, Geometry(32, 28)))
    torch.testing.assert_close(trained, expected, rtol=0, atol=0)


def test_grey_images_are_their_own_luma() -> None:
    rgb, _ = _store(in_memory=False)[3]
    grey, _ = _store(in_memory=False, channels=1)[3]
    torch.testing.assert_close(grey[0], rgb[0], rtol=0, atol=0)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_each_batch_and_see_every_image_once(world_size: int) -> None:
    shared = [
        epoch_order(100, batch_size=12, seed=5, epoch=2, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    alone = epoch_order(100, batch_size=12, seed=5, epoch=2)
    assert len({len(batches) for batches in shared}) == 1
    for step, batch in enumerate(alone[:-1]):
        together = torch.cat([batches[step] for batches in shared]).sort().values
        torch.testing.assert_close(together, batch.sort().values)
    seen = torch.cat(list(itertools.chain(*shared)))
    assert len(set(seen.tolist())) == len(seen) >= 96


def test_order_depends_on_seed_and_epoch_only() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat(epoch_order(50, batch_size=8, seed=seed, epoch=epoch)).tolist()

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)


def test_a_last_batch_of_one_image_is_left_out() -> None:
    assert [len(batch) for batch in epoch_order(17, batch_size=8, seed=0, epoch=0)] == [8, 8]
    assert [len(batch) for batch in epoch_order(3, batch_size=8, seed=0, epoch=0)] == [3]
