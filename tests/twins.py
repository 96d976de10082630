"""Adds an ONNX twin to a published model, as export writes it where its packages are installed."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from app.manifest import MANIFEST_FILE, ONNX_FILE, hash_file
from training.predictor import Predictor


class _Classify(nn.Module):
    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.predictor.classify(images)


def add_twin(version: Path, predictor: Predictor) -> Path:
    """Writes `model.onnx` into a version's folder, and its hash into the manifest; returns the file."""
    path, size = version / ONNX_FILE, predictor.image_size
    torch.onnx.export(
        _Classify(predictor).eval(),
        (torch.zeros(2, 3, size, size, dtype=torch.uint8),),
        str(path),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_shapes={"images": {0: torch.export.Dim("N", min=1)}},
        external_data=False,
    )
    list_twin(version)
    return path


def list_twin(version: Path) -> None:
    """Makes the manifest agree with the twin as it is."""
    manifest = json.loads((version / MANIFEST_FILE).read_text())
    manifest["files"][ONNX_FILE] = hash_file(version / ONNX_FILE).model_dump()
    (version / MANIFEST_FILE).write_text(json.dumps(manifest))
