"""Publishes the models of the benchmark with their ONNX twins, into a store of their own.

python -m benchmarks.models STORE

imagenet    EfficientNet-Lite0 with its ImageNet weights, as `make serve` imports it
resnet50    torchvision's ResNet-50 with random weights: no package has trained ones, and speed does not depend on them
simple-cnn  the 3-block network that training teaches with, 32 x 32, random weights
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from app.store.manifest import TrainingData
from training.data.statistics import IMAGENET_MEAN, IMAGENET_STD
from training.export.export import Provenance, export
from training.export.import_pretrained import GOLDEN_FOLDER, import_efficientnet_lite0
from training.export.predictor import Predictor
from training.networks.small_cnns import SimpleCNN

_UNTRAINED = TrainingData(name="none: random weights", licence="none", image_count=0)


def publish_missing(store: Path) -> None:
    """Publishes the models that the store has not yet."""
    publishers = {"imagenet": _efficientnet_lite0, "resnet50": _resnet50, "simple-cnn": _simple_cnn}
    for name, publish in publishers.items():
        if not any((store / name).glob("*/manifest.json")):
            torch.manual_seed(0)
            print(f"Publishing {name}", flush=True)
            publish(store)


def model_file(store: Path, name: str) -> Path:
    """Returns the TorchScript file of a model, which every peer loads."""
    return store / name / "1" / "model.pt"


def _efficientnet_lite0(store: Path) -> None:
    import_efficientnet_lite0(store_root=store)


def _resnet50(store: Path) -> None:
    from torchvision.models import ResNet50_Weights, resnet50

    names = ResNet50_Weights.IMAGENET1K_V2.meta["categories"]
    predictor = Predictor(resnet50(), names, image_size=224, resize_size=256, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    _export(predictor, store, "resnet50")


def _simple_cnn(store: Path) -> None:
    network: nn.Module = SimpleCNN(10, channels=3, image_size=32)
    names = [f"class {number}" for number in range(10)]
    _export(Predictor(network, names, image_size=32, mean=[0.5] * 3, std=[0.25] * 3), store, "simple-cnn")


def _export(predictor: Predictor, store: Path, name: str) -> None:
    golden = [path.read_bytes() for path in sorted(GOLDEN_FOLDER.glob("*.jpg"))]
    provenance = Provenance(architecture=name, training_data=_UNTRAINED, licence="none needed", source="random")
    export(predictor, store_root=store, name=name, golden_images=golden, provenance=provenance, onnx=True)


if __name__ == "__main__":
    publish_missing(Path(sys.argv[1]))
