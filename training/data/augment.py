"""Varies training images at random: a batch at once, each image by a draw of its own.

uint8 (B, C, R, R) -> crop, flip -> affine, colour | RandAugment ... -> [0, 1] -> normalise -> erase -> (B, C, S, S)

The draws come from torch's global generator. The training loop seeds it before each step, so that a resumed run varies
its images as an uninterrupted one.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import affine_grid, grid_sample
from torchvision.transforms import v2

from training.config.settings import TrainConfig
from training.data.statistics import Statistics, grey

# Zhong et al. 2017, "Random Erasing" (https://arxiv.org/abs/1708.04896): the part of the area, and the aspect ratio.
_ERASED_AREA = (0.02, 0.33)
_ERASED_RATIO = (0.3, 3.3)


def normalise(images: torch.Tensor, statistics: Statistics) -> torch.Tensor:
    """Normalises images.

    Args:
        images: uint8 `(B, C, S, S)`, or float in [0, 1].
        statistics: the mean and standard deviation that become 0 and 1.

    Returns:
        float32 `(B, C, S, S)`.
    """
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    mean = torch.tensor(statistics.mean, device=images.device).view(1, -1, 1, 1) * scale
    std = torch.tensor(statistics.std, device=images.device).view(1, -1, 1, 1) * scale
    return images.to(torch.float32).sub_(mean).div_(std)


class TrainingTransform:
    """Makes inputs of the network from the squares of a pixel store: varied and normalised.

    Args:
        config: the configuration of the run.
        statistics: the mean and standard deviation to normalise by.
    """

    def __init__(self, config: TrainConfig, statistics: Statistics) -> None:
        self.config = config
        self.statistics = statistics
        self.policy: v2.Transform | None = None
        match config.augmentation:
            case "randaugment":
                self.policy = v2.RandAugment(config.randaugment_num_ops, config.randaugment_magnitude)
            case "autoaugment":
                self.policy = v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET)
            case "trivialaugment":
                self.policy = v2.TrivialAugmentWide()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Varies and normalises uint8 `(B, C, R, R)`.

        Returns:
            float32 `(B, C, S, S)`.
        """
        return erase(normalise(self.vary(images), self.statistics), self.config.random_erasing)

    def vary(self, images: torch.Tensor) -> torch.Tensor:
        """Varies uint8 `(B, C, R, R)` and returns images that a person can look at.

        Returns:
            `(B, C, S, S)`, uint8 or float in [0, 1].
        """
        config = self.config
        if config.augmentation == "none":
            return central_crop(images, config.image_size)
        margin = images.shape[-1] - config.image_size
        padding = config.crop_padding
        if padding is None:
            padding = 0 if margin else config.image_size // 8
        if config.augmentation == "affine":
            images = random_crop(images, config.image_size, padding, flip=False)
            images = random_affine(
                images.to(torch.float32).div_(255),
                rotation_degrees=config.rotation_degrees,
                translation=config.translation,
                scaling=config.scaling,
                flip=config.horizontal_flip,
            )
            return colour_jitter(images, config.colour_jitter)
        images = random_crop(images, config.image_size, padding, flip=config.horizontal_flip)
        if self.policy is not None:  # torchvision draws once for a whole batch, so each image passes alone
            images = torch.stack([self.policy(image) for image in images])
        return images


def central_crop(images: torch.Tensor, side: int) -> torch.Tensor:
    """Cuts the central square out of each image.

    Args:
        images: `(B, C, R, R)`.
        side: the side S of the square, in pixels.
    """
    start = (images.shape[-1] - side) // 2
    return images[..., start : start + side, start : start + side]


def random_crop(images: torch.Tensor, side: int, padding: int, *, flip: bool) -> torch.Tensor:
    """Cuts a square out of each image at a random place, and may mirror half of the images.

    Args:
        images: uint8 `(B, C, R, R)`.
        side: the side S of the square, in pixels.
        padding: how far the square may reach over the border, in pixels, below R. The image is reflected there.
        flip: whether half of the images are mirrored left to right.
    """
    count, _, length, _ = images.shape
    device = images.device
    freedom = length + 2 * padding - side + 1
    offsets = torch.randint(freedom, (2, count, 1), device=device) - padding
    rows, columns = offsets + torch.arange(side, device=device)  # each (B, S)
    if flip:
        mirrored = torch.rand(count, 1, device=device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    rows, columns = (length - 1 - (length - 1 - axis.abs()).abs() for axis in (rows, columns))  # reflected
    image = torch.arange(count, device=device).view(-1, 1, 1)
    cropped = images.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]  # (B, S, S, C)
    return cropped.permute(0, 3, 1, 2)


def random_affine(
    images: torch.Tensor, *, rotation_degrees: float, translation: float, scaling: float, flip: bool
) -> torch.Tensor:
    """Turns, shifts, scales and mirrors each image by a draw of its own; the image is reflected at its border.

    Args:
        images: float `(B, C, S, S)`.
        rotation_degrees: the largest angle, in degrees.
        translation: the largest shift, as a part of the side.
        scaling: the largest part by which an image is enlarged or shrunk.
        flip: whether half of the images are mirrored left to right.
    """
    count, device = len(images), images.device

    def draw(limit: float) -> torch.Tensor:
        return (torch.rand(count, device=device) * 2 - 1) * limit

    angle = draw(math.radians(rotation_degrees))
    scale = 1 + draw(scaling)
    mirror = (
        torch.where(torch.rand(count, device=device) < 0.5, -1.0, 1.0) if flip else torch.ones(count, device=device)
    )
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    # affine_grid's coordinates run from -1 to 1: a shift by the whole side is 2.
    rows = [cosine * mirror, -sine, draw(2 * translation), sine * mirror, cosine, draw(2 * translation)]
    matrix = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = affine_grid(matrix, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def colour_jitter(images: torch.Tensor, strength: float) -> torch.Tensor:
    """Changes brightness, contrast and saturation of each image by draws of its own.

    Args:
        images: float `(B, C, S, S)` in [0, 1].
        strength: the largest part by which each of the three changes.
    """
    if strength == 0:
        return images
    factors = 1 + (torch.rand(3, len(images), 1, 1, 1, device=images.device) * 2 - 1) * strength
    brightness, contrast, saturation = factors
    images = images * brightness
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * contrast
    if images.shape[1] == 3:
        luma = grey(images)
        images = luma + (images - luma) * saturation
    return images.clamp(0, 1)


def erase(images: torch.Tensor, probability: float) -> torch.Tensor:
    """Sets a random rectangle of some images to 0, which is the mean.

    Args:
        images: normalised images, float `(B, C, S, S)`.
        probability: the probability that an image loses a rectangle.
    """
    if probability == 0:
        return images
    count, _, height, width = images.shape
    device = images.device
    chosen = torch.rand(count, 1, 1, device=device) < probability
    area = torch.empty(count, device=device).uniform_(*_ERASED_AREA) * height * width
    ratio = torch.empty(count, device=device).uniform_(*map(math.log, _ERASED_RATIO)).exp()

    def inside(extent: torch.Tensor, length: int) -> torch.Tensor:
        start = torch.rand(count, device=device) * (length - extent)
        place = torch.arange(length, device=device)
        return (place >= start[:, None]) & (place < (start + extent)[:, None])  # (B, length)

    rows = inside((area * ratio).sqrt().clamp(max=height - 1), height)
    columns = inside((area / ratio).sqrt().clamp(max=width - 1), width)
    erased = chosen & rows[:, :, None] & columns[:, None, :]  # (B, S, S)
    return images.masked_fill(erased[:, None], 0.0)


def mixing(config: TrainConfig, class_count: int) -> v2.Transform | None:
    """Returns what mixes the images and labels of a batch: mixup, cutmix or either at random; None if both are off.

    The transform takes images `(B, C, S, S)` and labels int64 `(B,)`, and returns probabilities `(B, class_count)` as
    labels.
    """
    choices: list[v2.Transform] = []
    if config.mixup:
        choices.append(v2.MixUp(alpha=config.mixup, num_classes=class_count))
    if config.cutmix:
        choices.append(v2.CutMix(alpha=config.cutmix, num_classes=class_count))
    return v2.RandomChoice(choices) if len(choices) > 1 else next(iter(choices), None)
