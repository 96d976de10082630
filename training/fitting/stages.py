"""Decides what learns in each epoch: the network from pixels, or only its head from features kept in memory.

config, epoch -> Stages.for_epoch(epoch) -> Stage: network, stores, transforms -> Trainer
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from training.config.settings import TrainConfig
from training.data.augment import TrainingTransform, normalise
from training.data.pixel_store import Batch, PixelStore
from training.data.statistics import Statistics
from training.fitting.seeding import seed_step
from training.networks.transfer import backbone_stages, extract_features, head_of, set_trainable_stages
from training.runs.progress import Reporter

_FEATURE_BATCH = 64
# Features draw their augmentation as an epoch that no training reaches.
_FEATURE_EPOCH = 2**31


class Store(Protocol):
    """Labelled inputs, pixels or features, that are read by position."""

    labels: torch.Tensor

    def batches(self, order: Sequence[torch.Tensor], *, workers: int, pin_memory: bool = False) -> Iterator[Batch]:
        """Yields the inputs at given positions, with their labels."""
        ...


class FeatureStore:
    """The features that a frozen backbone has computed from images.

    Args:
        features: float32 `(N, V, F)` for V views of each of N images, or `(N, F)` for one.
        labels: the class of each image, int64 `(N,)`.
    """

    def __init__(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        self.features = features
        self.labels = labels

    def batches(self, order: Sequence[torch.Tensor], *, workers: int, pin_memory: bool = False) -> Iterator[Batch]:
        """Yields the features at given positions, `(B, V, F)` or `(B, F)`, with their labels."""
        for positions in order:
            yield self.features[positions], self.labels[positions]


@dataclass(frozen=True)
class Stage:
    """What learns, and from which inputs.

    Attributes:
        network: the module that is trained: the whole network, or its head.
        training: the inputs of the training split.
        validation: the inputs of the validation split.
        vary: turns a batch of `training` into the input of `network`, with random changes.
        prepare: turns a batch of `validation` into the input of `network`, always in the same way.
        from_pixels: whether the inputs are images. Otherwise they are features.
    """

    network: nn.Module
    training: Store
    validation: Store
    vary: Callable[[torch.Tensor], torch.Tensor]
    prepare: Callable[[torch.Tensor], torch.Tensor]
    from_pixels: bool


class Stages:
    """The stages of a run. Each is made when its first epoch begins.

    Args:
        config: the configuration of the run.
        model: the whole network, on its device.
        training: the images of the training split.
        validation: the images of the validation split.
        statistics: the mean and std that images are normalised by.
        reporter: shows how far the computation of features is.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        training: PixelStore,
        validation: PixelStore,
        statistics: Statistics,
        reporter: Reporter,
    ) -> None:
        self.config = config
        self.model = model
        self.training = training
        self.validation = validation
        self.statistics = statistics
        self.reporter = reporter
        self.transform = TrainingTransform(config, statistics)
        self._features: Stage | None = None

    def for_epoch(self, epoch: int) -> Stage:
        """Returns the stage of an epoch, from 0, and freezes the layers that do not learn in it."""
        set_trainable_stages(self.model, self.trainable_stages(epoch))
        if self.config.feature_views and epoch < self.config.frozen_epochs:
            if self._features is None:
                self._features = self._feature_stage()
            return self._features
        self._features = None  # frees the memory
        return Stage(self.model, self.training, self.validation, self._vary, self._prepare, from_pixels=True)

    def trainable_stages(self, epoch: int) -> int | None:
        """Returns how many of the backbone's last stages learn in an epoch; None means all."""
        if epoch < self.config.frozen_epochs:
            return 0
        thawed = epoch - self.config.frozen_epochs + 1
        if self.config.unfreezing == "staged" and thawed < len(backbone_stages(self.model)):
            return thawed
        return None

    def _vary(self, images: torch.Tensor) -> torch.Tensor:
        return self._layout(self.transform(images))

    def _prepare(self, images: torch.Tensor) -> torch.Tensor:
        return self._layout(normalise(images, self.statistics))

    def _layout(self, inputs: torch.Tensor) -> torch.Tensor:
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        return inputs.contiguous(memory_format=layout)

    def _feature_stage(self) -> Stage:
        views = []
        for view in range(self.config.feature_views):
            views.append(self._extract(self.training, self._vary, f"Features, view {view + 1}", view))
        training = FeatureStore(torch.stack(views, dim=1), self.training.labels)  # (N, V, F)
        features = self._extract(self.validation, self._prepare, "Features, validation", 0)
        validation = FeatureStore(features, self.validation.labels)  # (N, F)
        return Stage(head_of(self.model)[1], training, validation, _draw_view, lambda x: x, from_pixels=False)

    def _extract(
        self, store: PixelStore, transform: Callable[[torch.Tensor], torch.Tensor], description: str, view: int
    ) -> torch.Tensor:
        order = list(torch.split(torch.arange(len(store)), _FEATURE_BATCH))
        device = next(self.model.parameters()).device
        with self.reporter.track(description, len(order)) as advance:

            def inputs() -> Iterator[torch.Tensor]:
                for step, (images, _) in enumerate(store.batches(order, workers=self.config.workers)):
                    seed_step(self.config.seed, _FEATURE_EPOCH + view, step)
                    yield transform(images.to(device))
                    advance(len(images))

            return extract_features(self.model, inputs())


def _draw_view(features: torch.Tensor) -> torch.Tensor:
    """Draws one view of each image: `(B, V, F)` -> `(B, F)`."""
    count, views, _ = features.shape
    view = torch.randint(views, (count,), device=features.device)
    return features[torch.arange(count, device=features.device), view]
