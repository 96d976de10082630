"""Draws what the network of a run has learned: filters, feature maps, Grad-CAM; and how its training images varied.

run folder, image -> run_predictor -> filters, feature maps, Grad-CAM, augmentations -> Figure -> PNG, report
"""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import torch
from matplotlib.figure import Figure

from app.errors import ImageError
from app.images.decode import decode
from training.config.settings import TrainConfig
from training.data.augment import TrainingTransform
from training.data.pixel_store import PixelStore, as_planes
from training.data.prepared import prepare_data
from training.data.statistics import Statistics
from training.errors import DataError
from training.export.predictor import Predictor
from training.pictures.drawing import picture_grid
from training.pictures.feature_maps import as_pictures, first_feature_maps, first_filters
from training.pictures.grad_cam import grad_cam, overlay
from training.pictures.layers import run_layers
from training.runs.checkpoint import load_best
from training.runs.run_folder import RunFolder

_MAX_FILTERS = 64
_MAX_MAPS = 32


def read_image(path: Path, predictor: Predictor) -> torch.Tensor:
    """Reads an image file, and resizes and crops it as the model does.

    Returns:
        the image, uint8 `(3, S, S)`.

    Raises:
        DataError: the file cannot be read, or is no image.
    """
    try:
        pixels = as_planes(decode(path.read_bytes()).to_array())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except ImageError as error:
        raise DataError(f"{path}: {error}") from error
    return predictor.resize_and_crop(pixels.unsqueeze(0))[0]


def filter_figure(predictor: Predictor) -> Figure:
    """Draws the filters of the first convolution: in colour if it takes 3 channels, where mid-grey is a weight of 0.

    Raises:
        NotDrawableError: the network has no convolution.
    """
    _, filters = first_filters(predictor.model)
    return picture_grid(list(as_pictures(filters[:_MAX_FILTERS])), columns=16, side=0.55)


def map_figures(predictor: Predictor, image: torch.Tensor) -> list[tuple[str, Figure]]:
    """Draws the feature maps of the first convolution, activation and pooling.

    Args:
        predictor: the model, in evaluation mode.
        image: one image, uint8 `(3, S, S)`.

    Returns:
        a title and a figure for each of the three, in the order of the calls.

    Raises:
        NotDrawableError: the network has no convolution.
    """
    figures = []
    for run in first_feature_maps(run_layers(predictor, image.unsqueeze(0))):
        channels, height, width = run.output.shape[1:]
        lowest, highest = float(run.output.min()), float(run.output.max())
        title = f"{run.kind} {run.name}: {channels} maps of {height} x {width}, values {lowest:.2f} to {highest:.2f}"
        figures.append((title, picture_grid(list(run.output[0, :_MAX_MAPS]), columns=16, side=0.55, colours="viridis")))
    return figures


def cam_figure(predictor: Predictor, images: torch.Tensor) -> Figure:
    """Draws each image above the overlay of its Grad-CAM for the most probable class.

    Args:
        predictor: the model, in evaluation mode.
        images: the images, uint8 `(N, 3, S, S)`.

    Raises:
        NotDrawableError: the network has no convolution.
    """
    probabilities, predictions = predictor.classify(images).max(dim=1)
    titles = [
        f"{predictor.class_names[index][:16]} {100 * probability:.0f} %"
        for index, probability in zip(predictions.tolist(), probabilities.tolist(), strict=True)
    ]
    heats = [grad_cam(predictor, image[None], index) for image, index in zip(images, predictions.tolist(), strict=True)]
    overlays = [overlay(image, heat) for image, heat in zip(images, heats, strict=True)]
    pictures = [image.permute(1, 2, 0) for image in images] + overlays
    return picture_grid(pictures, titles=[*titles, *[""] * len(overlays)], columns=len(images), side=1.15)


def run_augmentation_figure(run: RunFolder, *, images: int, versions: int, seed: int) -> Figure:
    """Draws a few training images of a run, and random versions of each as training sees them.

    Args:
        run: the folder of the run.
        images: the number of images. Each is of another class, as long as there are classes left.
        versions: the number of versions of each image.
        seed: the seed of the random versions.

    Raises:
        DataError: the images of the run are not there any more.
    """
    config, best = run.config(), load_best(run.best_checkpoint)
    data = prepare_data(config, run.path)
    by_class: dict[int, list[int]] = {}
    for index in data.split.train:
        by_class.setdefault(data.source.labels[index], []).append(index)
    rounds = zip_longest(*by_class.values())  # the first image of each class, then the second ...
    chosen = [index for members in rounds for index in members if index is not None][:images]
    side = config.shorter_side
    store = PixelStore(data.source, chosen, resize_size=side, image_size=side, channels=config.channels, in_memory=True)
    (pixels, _), *_ = store.batches([torch.arange(len(chosen))], workers=0)
    return augmentation_figure(config, pixels, Statistics(best.mean, best.std), versions=versions, seed=seed)


def augmentation_figure(
    config: TrainConfig, images: torch.Tensor, statistics: Statistics, *, versions: int, seed: int
) -> Figure:
    """Draws each image (left) and random versions of it as training sees them.

    Args:
        config: the configuration of the run.
        images: images of the training split, uint8 `(N, channels, R, R)`.
        statistics: the mean and std that images are normalised by.
        versions: the number of versions of each image.
        seed: the seed of the random versions.
    """
    torch.manual_seed(seed)
    transform = TrainingTransform(config, statistics)
    varied = [transform(images) for _ in range(versions)]  # each (N, channels, S, S), normalised
    mean = torch.tensor(statistics.mean).view(1, -1, 1, 1)
    std = torch.tensor(statistics.std).view(1, -1, 1, 1)
    columns = [images.float() / 255, *((batch * std + mean).clamp(0, 1) for batch in varied)]
    pictures = [column[row].permute(1, 2, 0).squeeze(-1) for row in range(len(images)) for column in columns]
    return picture_grid(pictures, columns=versions + 1, side=1.0)
