"""Makes a complete manifest, and stand-ins for the files of a version, for tests of the store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.store.manifest import MODEL_FILE, Architecture, Fidelity, Manifest, Preprocessing, TrainingData


def manifest(name: str = "digits", version: int = 1, **changes: Any) -> Manifest:
    """Returns a complete manifest without files."""
    fields: dict[str, Any] = {
        "name": name,
        "version": version,
        "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "class_names": ("zero", "eins", "zwölf"),
        "preprocessing": Preprocessing(resize_size=32, image_size=28, mean=(0.1,), std=(0.3,), temperature=1.5),
        "architecture": Architecture(name="tiny-net", parameter_count=1234),
        "training_data": TrainingData(name="digits", licence="CC-BY-4.0", image_count=1797),
        "metrics": {"test_accuracy": 0.987654321},
        "seeds": {"split": 7},
        "library_versions": {"torch": "2.14.1"},
        "fidelity": Fidelity(golden_count=3, max_abs_deviation=1e-7),
    }
    return Manifest(**fields | changes)


def write_files(folder: Path, version: int) -> Manifest:
    """Writes a stand-in for a model, as a publisher would."""
    (folder / MODEL_FILE).write_bytes(b"weights of version %d" % version)
    (folder / "model.onnx").write_bytes(b"twin")
    return manifest(version=version)
