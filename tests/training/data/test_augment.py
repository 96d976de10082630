"""Each training image varies by its own draw, reproducibly, and only as configured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.images import Pixels
from tests.support.training_runs import digits_config
from training.data.augment import TrainingTransform, colour_jitter, erase, mixing, normalise, random_affine, random_crop
from training.data.statistics import Statistics

GREY = Statistics((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture
def images(cat: Pixels) -> torch.Tensor:
    """The same square of the cat eight times, uint8 `(8, 3, 64, 64)`."""
    return torch.tensor(cat[60:124, 150:214]).permute(2, 0, 1).expand(8, 3, 64, 64).contiguous()


@pytest.mark.parametrize("preset", ["none", "light", "affine", "randaugment", "autoaugment", "trivialaugment"])
@pytest.mark.parametrize("image_size", [64, 56])
def test_preset_gives_normalised_inputs_of_the_right_size(
    preset: str, image_size: int, images: torch.Tensor, tmp_path: Path
) -> None:
    config = digits_config(
        tmp_path, augmentation=preset, image_size=image_size, resize_size=64, channels=3, horizontal_flip=True
    )
    transform = TrainingTransform(config, GREY)
    torch.manual_seed(1)
    varied = transform(images)
    assert varied.shape == (8, 3, image_size, image_size)
    assert varied.dtype == torch.float32
    assert varied.abs().max() <= 2.001  # (0 - 0.5) / 0.25 to (1 - 0.5) / 0.25
    torch.manual_seed(1)
    torch.testing.assert_close(transform(images), varied, rtol=0, atol=0)
    distinct = len({tuple(image.flatten().tolist()) for image in varied})
    assert distinct == 1 if preset == "none" else distinct >= 5


def test_none_is_the_central_crop(images: torch.Tensor, tmp_path: Path) -> None:
    config = digits_config(tmp_path, augmentation="none", image_size=56, resize_size=64, channels=3)
    torch.testing.assert_close(TrainingTransform(config, GREY)(images), normalise(images[..., 4:60, 4:60], GREY))


def test_crop_without_freedom_mirrors_half_of_the_images(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    many = images.repeat(50, 1, 1, 1)
    cropped = random_crop(many, 64, 0, flip=True)
    mirrored = (cropped == many.flip(3)).all(dim=(1, 2, 3))
    kept = (cropped == many).all(dim=(1, 2, 3))
    assert bool((mirrored | kept).all())
    assert 150 < int(mirrored.sum()) < 250


def test_padding_reflects_the_border(images: torch.Tensor) -> None:
    padded = torch.nn.functional.pad(images[:1].float(), (8, 8, 8, 8), mode="reflect").to(torch.uint8)[0]
    windows = {tuple(padded[:, y : y + 64, x : x + 64].flatten().tolist()) for y in range(17) for x in range(17)}
    torch.manual_seed(0)
    for cropped in random_crop(images, 64, 8, flip=False):
        assert tuple(cropped.flatten().tolist()) in windows


def test_affine_without_strength_changes_nothing(images: torch.Tensor) -> None:
    floats = images.float() / 255
    same = random_affine(floats, rotation_degrees=0, translation=0, scaling=0, flip=False)
    torch.testing.assert_close(same, floats, atol=1e-4, rtol=0)


def test_affine_shifts_by_at_most_what_is_configured() -> None:
    dot = torch.zeros(200, 1, 41, 41)
    dot[:, :, 20, 20] = 1
    torch.manual_seed(0)
    moved = random_affine(dot, rotation_degrees=0, translation=0.1, scaling=0, flip=False)
    place = moved.flatten(1).argmax(1)
    rows, columns = place // 41 - 20, place % 41 - 20
    assert 3 <= int(rows.abs().max()) <= 4
    assert 3 <= int(columns.abs().max()) <= 4


def test_colour_jitter_stays_in_range_and_differs_by_image(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    jittered = colour_jitter(images.float() / 255, 0.5)
    assert jittered.min() >= 0
    assert jittered.max() <= 1
    assert len({round(value, 6) for value in jittered.mean(dim=(1, 2, 3)).tolist()}) == 8


def test_erasing_sets_rectangles_of_some_images_to_the_mean() -> None:
    torch.manual_seed(0)
    erased = erase(torch.ones(400, 3, 32, 32), 0.5) == 0
    chosen = erased.flatten(1).any(1)
    assert 150 < int(chosen.sum()) < 250
    assert bool((erased == erased[:, :1]).all())
    parts = erased[chosen, 0].float().mean(dim=(1, 2))
    assert parts.max() <= 0.40  # a third, rounded up to whole pixels
    rows, columns = erased[chosen, 0].any(2).sum(1), erased[chosen, 0].any(1).sum(1)
    torch.testing.assert_close((rows * columns).float() / 32**2, parts)


@pytest.mark.parametrize("settings", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixing_gives_probabilities_as_labels(settings: dict[str, float], tmp_path: Path) -> None:
    mix = mixing(digits_config(tmp_path, **settings), 4)
    assert mix is not None
    torch.manual_seed(0)
    images, labels = mix(torch.randn(6, 3, 8, 8), torch.tensor([0, 1, 2, 3, 0, 1]))
    assert images.shape == (6, 3, 8, 8)
    torch.testing.assert_close(labels.sum(1), torch.ones(6))


def test_without_mixing_there_is_nothing_to_mix(tmp_path: Path) -> None:
    assert mixing(digits_config(tmp_path), 4) is None
