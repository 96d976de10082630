"""Gives batches of resized images, from memory if they fit, and else decoded by worker processes.

epoch_order: positions -> PixelStore.batches: uint8 (B, C, R, R) from memory, or decoded -> augment
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from app.images.decode import MIN_DETAIL
from app.images.geometry import Geometry
from app.images.resize import resize_and_crop
from training.data.sources import Source
from training.data.statistics import grey

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images, uint8 `(B, C, R, R)`, and labels, int64 `(B,)`."""


class PixelStore(Dataset[Batch]):
    """Some images of a source, decoded and resized as the service does.

    Args:
        source: the source of the images.
        indices: the indices of the images in the source.
        resize_size: the shorter side of an image before the crop, in pixels.
        image_size: the side R of the crop, in pixels.
        channels: 3, or 1 for grey.
        in_memory: whether all images are decoded now and kept. Otherwise each is decoded whenever it is asked for.
    """

    def __init__(
        self,
        source: Source,
        indices: Sequence[int],
        *,
        resize_size: int,
        image_size: int,
        channels: int,
        in_memory: bool,
    ) -> None:
        self.source = source
        self.indices = list(indices)
        self.resize_size = resize_size
        self.image_size = image_size
        self.channels = channels
        self.labels = torch.tensor([source.labels[index] for index in indices], dtype=torch.int64)
        self.pixels: torch.Tensor | None = None
        if in_memory:
            # Zeros first: a memory limit is met here, not after an hour of decoding.
            pixels = torch.zeros(len(self), channels, image_size, image_size, dtype=torch.uint8)
            # NumPy copies in this thread alone. torch's threads would spin between two images, at the decoders' cost.
            copies = pixels.numpy()
            with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes and resizes without the GIL
                for position, image in enumerate(pool.map(self._decode, range(len(self)))):
                    copies[position] = image.numpy()
            self.pixels = pixels

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Batch:
        return self._decode(position), self.labels[position]

    def batches(self, order: Sequence[torch.Tensor], *, workers: int, pin_memory: bool = False) -> Iterator[Batch]:
        """Yields batches of the images at given positions.

        Args:
            order: the positions of each batch, int64 `(B,)`.
            workers: how many processes decode images that are not in memory; with 0, this process does.
            pin_memory: whether batches lie in pinned memory, so that copies to a GPU overlap with its work.
        """
        if self.pixels is None:
            sampler = [positions.tolist() for positions in order]
            yield from DataLoader(self, batch_sampler=sampler, num_workers=workers, pin_memory=pin_memory)
            return
        for positions in order:
            images, labels = self.pixels[positions], self.labels[positions]
            yield (images.pin_memory(), labels.pin_memory()) if pin_memory else (images, labels)

    def _decode(self, position: int) -> torch.Tensor:
        image = self.source.image(self.indices[position], min_shorter_side=MIN_DETAIL * self.resize_size)
        rgb = as_planes(resize_and_crop(image, Geometry(self.resize_size, self.image_size)))  # (3, R, R)
        if self.channels == 3:
            return rgb
        return grey(rgb).round().to(torch.uint8)  # (1, R, R)


def as_planes(pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Returns the pixels of an image, uint8 `(H, W, 3)`, as `(3, H, W)`."""
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def epoch_order(
    image_count: int, *, batch_size: int, seed: int, epoch: int, rank: int = 0, world_size: int = 1
) -> list[torch.Tensor]:
    """Returns the shuffled positions of each batch of one process in one epoch.

    The order depends on nothing but the arguments. A resumed run sees the same batches, and the batches of several
    processes together are those of one.

    Args:
        image_count: the number of images in the training split.
        batch_size: the number of images in a batch, over all processes.
        seed: the seed of the run.
        epoch: the number of the epoch, from 0.
        rank: the number of this process, from 0.
        world_size: the number of processes.

    Returns:
        the positions of the images of each batch that this process gets, int64.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(image_count, generator=generator)
    batches = list(torch.split(order, min(batch_size, image_count)))
    # The last batch is made even, so that each process has the same number of images and steps. A batch of a single
    # image is left out: batch normalisation has no variance there. Each epoch leaves out other images.
    last = batches[-1][: len(batches[-1]) // world_size * world_size]
    batches[-1:] = [last] if len(last) >= 2 * world_size or (len(batches) == 1 and len(last)) else []
    return [batch[rank::world_size] for batch in batches]
