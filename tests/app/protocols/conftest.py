"""One service with three models: of three classes, of two, and a file of four that nothing proves."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from torch import nn

from app.store.manifest import TrainingData
from tests.support.colours import StartApp, applications, colour_image, export_colours
from tests.support.images import encode
from training.export.export import Provenance, export
from training.export.predictor import Predictor

KEY = "the-key-of-these-tests"
API_KEYS = f"tests:{hashlib.sha256(KEY.encode()).hexdigest()}"
ADMIN_KEY = "the-admin-key-of-these-tests"
MODELS = {"colours": 3, "pair": 2, "bare": 4}
"""The models of the service, and how many classes each has."""


class _Brightness(nn.Module):
    """`(N, 3, S, S)` -> `(N, 2)` logits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(dim=(1, 2, 3))
        return torch.stack([mean, -mean], dim=1)


class _Bare(nn.Module):
    """`(N, 3, H, W)` -> `(N, 4)` probabilities: what people bring who have only `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.class_names = ["red", "green", "blue", "none"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.to(torch.float32).mean(dim=(2, 3)) / 255
        logits = torch.cat([mean * 3, torch.ones(x.shape[0], 1)], dim=1)
        return torch.softmax(logits, dim=1)


def three_models_in(root: Path, folder: Path) -> tuple[Path, str]:
    """Publishes two models in a store and writes a file into a folder; returns the store and the setting `model`."""
    export_colours(root)
    predictor = Predictor(_Brightness(), ["dark", "light"], image_size=8, resize_size=9, mean=[0.4] * 3, std=[0.2] * 3)
    export(
        predictor,
        store_root=root,
        name="pair",
        golden_images=[colour_image("red")],
        provenance=Provenance(architecture="brightness", training_data=TrainingData(name="none")),
        onnx=False,
    )
    file = folder / "bare.pt"
    torch.jit.script(_Bare()).save(str(file))  # type: ignore[no-untyped-call]
    return root, f"colours,pair,{file}"


@pytest.fixture(scope="session")
def three_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store of two models, and the setting that serves them and the file beside them."""
    return three_models_in(tmp_path_factory.mktemp("three-models"), tmp_path_factory.mktemp("file"))


@pytest.fixture(scope="module")
def start(three_models: tuple[Path, str]) -> Iterator[StartApp]:
    """Starts services with the three models."""
    root, model = three_models
    with applications(root) as start_with:
        yield lambda **settings: start_with(**{"model": model, **settings})


@pytest.fixture(scope="module")
def service(start: StartApp) -> TestClient:
    """A service with the three models."""
    return start()


@pytest.fixture(scope="session")
def admin_keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the admin key."""
    path = tmp_path_factory.mktemp("keys") / "admin-keys"
    path.write_text(f"admin:{hashlib.sha256(ADMIN_KEY.encode()).hexdigest()}\n")
    path.chmod(0o600)
    return path


def mixed_pixels(*, width: int = 41, height: int = 30, seed: int = 1) -> np.ndarray:
    """Returns pixels of which no class is sure, uint8 `(H, W, 3)`."""
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    pixels: np.ndarray = (noise + np.array([110, 90, 100])).astype(np.uint8)
    return pixels


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """The pixels of the image that these tests send."""
    return mixed_pixels()


@pytest.fixture(scope="session")
def image(pixels: np.ndarray) -> bytes:
    """The image that these tests send, as a PNG."""
    return encode(pixels, "PNG")


@pytest.fixture(scope="session")
def text(image: bytes) -> str:
    """The image in base64."""
    return base64.b64encode(image).decode()
