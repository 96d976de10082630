"""A model is published with a verified ONNX twin if the ONNX packages are there, and not at all if the twin fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import training.export.export as export_module
from app.store.manifest import MANIFEST_FILE, ONNX_FILE, Manifest, TrainingData
from app.store.publishing import hash_file, published_versions
from training.errors import ExportError
from training.export.export import Provenance, export
from training.export.import_pretrained import GOLDEN_FOLDER
from training.export.onnx_twin import write_onnx
from training.export.predictor import Predictor

pytestmark = pytest.mark.slow

PROVENANCE = Provenance(architecture="tiny", training_data=TrainingData(name="photos"), seeds={"training": 3})


class EagerOnly(nn.Module):
    """Computes something else once it is scripted: what a change of TorchScript's meaning would look like."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(x.mean(dim=(2, 3)))
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            logits = logits + torch.arange(2)
        return logits


def _predictor(model: nn.Module | None = None) -> Predictor:
    torch.manual_seed(0)
    small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return Predictor(model or small, ["cat", "rocket"], image_size=16, mean=[0.5] * 3, std=[0.2] * 3)


def _golden_images() -> list[bytes]:
    return [path.read_bytes() for path in sorted(GOLDEN_FOLDER.glob("*.jpg"))]


def _export(predictor: Predictor, store: Path, *, onnx: bool | None = None) -> Path:
    return export(
        predictor, store_root=store, name="pets", golden_images=_golden_images(), provenance=PROVENANCE, onnx=onnx
    )


def test_published_version_has_a_verified_twin_that_the_manifest_hashes(tmp_path: Path) -> None:
    folder = _export(_predictor(), tmp_path)
    manifest = Manifest.read(folder)
    assert manifest.files[ONNX_FILE] == hash_file(folder / ONNX_FILE)
    assert manifest.fidelity.onnx_max_abs_deviation is not None
    assert manifest.fidelity.onnx_max_abs_deviation < 1e-5
    assert "onnxruntime" in manifest.library_versions
    inside = {MANIFEST_FILE: ""}
    torch.jit.load(str(folder / "model.pt"), _extra_files=inside)  # type: ignore[no-untyped-call]
    assert Manifest.from_json(inside[MANIFEST_FILE], origin="model.pt").fidelity == manifest.fidelity


def test_without_the_onnx_packages_the_model_is_published_without_a_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "missing_onnx_packages", lambda: ["onnx"])
    manifest = Manifest.read(_export(_predictor(), tmp_path))
    assert sorted(manifest.files) == ["model.pt"]
    assert manifest.fidelity.onnx_max_abs_deviation is None


def test_sabotaged_script_publishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="scripted model deviates"):
        _export(_predictor(EagerOnly()), tmp_path, onnx=False)
    assert published_versions(tmp_path / "pets") == []
    assert list((tmp_path / "pets").iterdir()) == []


def test_sabotaged_twin_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_another(predictor: Predictor, path: Path) -> None:
        sabotaged = _predictor()
        with torch.no_grad():
            for parameter in sabotaged.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        write_onnx(sabotaged, path)

    _export(_predictor(), tmp_path, onnx=False)
    monkeypatch.setattr(export_module, "write_onnx", write_another)
    with pytest.raises(ExportError, match="ONNX twin deviates"):
        _export(_predictor(), tmp_path)
    assert published_versions(tmp_path / "pets") == [1]


def test_network_that_onnx_cannot_express_publishes_nothing_and_says_the_way_out(tmp_path: Path) -> None:
    class DataDependent(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if bool(x.sum() > 0):
                return x.mean(dim=(2, 3))[:, :2]
            return -x.mean(dim=(2, 3))[:, :2]

    with pytest.raises(ExportError, match="without the twin"):
        _export(_predictor(DataDependent()), tmp_path)
    assert published_versions(tmp_path / "pets") == []
