"""Measures one epoch of training: ours and the ordinary recipe, side by side in one run.

The 3-block `simple-cnn` on 60,000 synthetic grey images of 28 x 28, random crops with a reflected border of 2 and
mirrored halves, batches of 64, Adam. The ordinary recipe is what courses teach: a Dataset of PIL images, torchvision
transforms on each sample in a DataLoader with two workers, the default memory layout. Both train the same network from
the same weights. Epochs alternate, so that what else the machine does falls on both.

    python -m benchmarks.training_loop
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from training.config.file import parse_config
from training.config.settings import TrainConfig
from training.data.prepared import PreparedData
from training.data.scan import Scan
from training.data.sources import ArraySource, Pixels
from training.data.split import Split
from training.fitting.accelerator import make_accelerator
from training.fitting.trainer import Trainer
from training.networks.build import build_model
from training.runs.progress import Reporter
from training.runs.run_folder import RunFolder, create_run
from training.runs.tracking import Tracker

CLASSES = 10
VALIDATION_IMAGES = 1000


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=3, help="measured; one more of each warms up")
    parser.add_argument("--workers", type=int, default=2, help="of the ordinary recipe's DataLoader")
    arguments = parser.parse_args()
    pixels, labels = synthetic_images(arguments.images + VALIDATION_IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(Path(folder), arguments.epochs + 1)
        trainer = make_trainer(config, pixels, labels)
        ordinary = OrdinaryRecipe(config, pixels[: arguments.images], labels[: arguments.images], arguments.workers)
        ours_s: list[float] = []
        ordinary_s: list[float] = []
        for epoch in range(arguments.epochs + 1):
            with timed(ours_s):
                trainer.progress.epoch, trainer.progress.step = epoch, 0
                trainer.train_epoch(*trainer.stage_for_epoch(epoch, None))
            with timed(ordinary_s):
                ordinary.train_epoch()
            print(f"epoch {epoch}: ours {ours_s[-1]:.2f} s, ordinary {ordinary_s[-1]:.2f} s", flush=True)
    report(ours_s[1:], ordinary_s[1:], arguments.images)


def synthetic_images(count: int) -> tuple[Pixels, list[int]]:
    """Returns uint8 `(N, 28, 28)` of noise around a pattern of each class, and labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, count)
    patterns = generator.integers(0, 200, (CLASSES, 28, 28))
    noise = generator.integers(0, 56, (count, 28, 28))
    return (patterns[labels] + noise).astype(np.uint8), labels.tolist()


def make_config(folder: Path, epochs: int) -> TrainConfig:
    """Returns the configuration of both."""
    settings = {
        "data": "synthetic", "architecture": "simple-cnn", "channels": 1, "image_size": 28, "augmentation": "light",
        "crop_padding": 2, "batch_size": 64, "optimiser": "adam", "weight_decay": 0, "schedule": "constant",
        "epochs": epochs, "runs": folder, "tracking": "none", "device": "cpu",
        "statistics": "given", "mean": (0.5,), "std": (0.25,),
    }  # fmt: skip
    return parse_config(settings, origin="The benchmark")


def make_trainer(config: TrainConfig, pixels: Pixels, labels: list[int]) -> Trainer:
    """Returns our trainer on the images."""
    count = len(labels)
    classes = tuple(str(number) for number in range(CLASSES))
    source = ArraySource(classes, pixels, tuple(labels), (None,) * count)
    train = count - VALIDATION_IMAGES
    split = Split(tuple(range(train)), tuple(range(train, count)), ())
    data = PreparedData(config, source, Scan(count, {}, (), (), 28, 28), split, ())
    run: RunFolder = create_run(config)
    reporter = Reporter(active=False)
    return Trainer(config, run, data, make_accelerator(config), reporter, Tracker(active=False, reporter=reporter))


class OrdinaryRecipe:
    """What courses teach."""

    def __init__(self, config: TrainConfig, pixels: Pixels, labels: list[int], workers: int) -> None:
        torch.manual_seed(config.seed)
        self.model = build_model(config, CLASSES)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        self.loss_function = nn.CrossEntropyLoss()
        transform = transforms.Compose(
            [
                transforms.RandomCrop(28, padding=2, padding_mode="reflect"),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.5,), (0.25,)),
            ]
        )
        dataset = _PilDataset(pixels, labels, transform)
        self.loader = DataLoader(dataset, batch_size=config.batch_size, shuffle=True, num_workers=workers)

    def train_epoch(self) -> None:
        """Trains one epoch, with the running loss and accuracy that such loops print."""
        self.model.train()
        loss_sum, correct = 0.0, 0
        for images, labels in self.loader:
            self.optimiser.zero_grad()
            logits = self.model(images)
            loss = self.loss_function(logits, labels)
            loss.backward()
            self.optimiser.step()
            loss_sum += loss.item() * len(labels)
            correct += int((logits.argmax(1) == labels).sum())


class _PilDataset(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, pixels: Pixels, labels: list[int], transform: transforms.Compose) -> None:
        self.pixels, self.labels, self.transform = pixels, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Appends how long the block took."""
    started = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - started)


def report(ours_s: list[float], ordinary_s: list[float], images: int) -> None:
    """Prints medians, spread and what they were measured on."""
    print(
        f"\n{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"{images:,} images of 28 x 28, {len(ours_s)} epochs each")
    for name, seconds in (("ours", ours_s), ("ordinary", ordinary_s)):
        median = statistics.median(seconds)
        print(f"{name:<9} median {median:6.2f} s  min {min(seconds):6.2f}  max {max(seconds):6.2f}  "
              f"{images / median:8.0f} images/s")  # fmt: skip
    ratio = statistics.median(ours_s) / statistics.median(ordinary_s)
    print(f"ours takes {ratio:.2f} of the ordinary recipe's time")


if __name__ == "__main__":
    main()
