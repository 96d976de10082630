"""Adds an ONNX twin to a published model, as export writes it where its packages are installed."""

from __future__ import annotations

import json
from pathlib import Path

from app.store.manifest import MANIFEST_FILE, ONNX_FILE
from app.store.publishing import hash_file
from tests.support.live import SERVICE_PYTHON
from training.export.onnx_twin import write_onnx
from training.export.predictor import Predictor

# Those that can serve a model with a twin on a CPU.
ENGINES = ("openvino",) if SERVICE_PYTHON else ("torchscript", "openvino")


def add_twin(version: Path, predictor: Predictor) -> Path:
    """Writes `model.onnx` into a version's folder, and its hash into the manifest; returns the file."""
    path = version / ONNX_FILE
    write_onnx(predictor, path)
    list_twin(version)
    return path


def list_twin(version: Path) -> None:
    """Makes the manifest agree with the twin as it is."""
    manifest = json.loads((version / MANIFEST_FILE).read_text())
    manifest["files"][ONNX_FILE] = hash_file(version / ONNX_FILE).model_dump()
    (version / MANIFEST_FILE).write_text(json.dumps(manifest))
