"""Fixtures for fidelity: what the service of the module's `client` answers, and what the artifact alone does."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from starlette.testclient import TestClient

from tests.support.fidelity import Probabilities, Serve


@pytest.fixture(scope="module")
def serve(client: TestClient) -> Serve:
    """Returns all probabilities that the service gives for an image."""

    def serve(encoded: bytes) -> Probabilities:
        response = client.post("/predict?top_k=1000", content=encoded)
        assert response.status_code == 200, response.text
        probabilities = np.zeros(1000)
        for prediction in response.json()["predictions"]:
            probabilities[prediction["class_id"]] = prediction["probability"]
        return probabilities

    return serve


@pytest.fixture(scope="module")
def refer(imagenet_store: Path) -> Serve:
    """Returns all probabilities that the artifact gives for an image that Pillow decoded in full."""
    predictor = torch.jit.load(str(imagenet_store / "imagenet" / "1" / "model.pt"))  # type: ignore[no-untyped-call]

    def refer(encoded: bytes) -> Probabilities:
        with Image.open(io.BytesIO(encoded)) as opened:
            image = ImageOps.exif_transpose(opened)
        if image.mode == "I;16":
            image = Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
        rgba = image.convert("RGBA") if image.has_transparency_data else image.convert("RGB").convert("RGBA")
        rgb = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        pixels = torch.from_numpy(np.array(rgb)).permute(2, 0, 1).unsqueeze(0)  # (1, 3, H, W)
        probabilities: Probabilities = predictor(pixels)[0].double().numpy()
        return probabilities

    return refer
