"""Exporting scripts a model, verifies it and publishes it; a model that fails is never in the store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from app.images.decode import decode
from app.store.manifest import GOLDEN_FILE, MANIFEST_FILE, MODEL_FILE, ONNX_FILE, GoldenExamples, Manifest, TrainingData
from app.store.model_store import ModelStore, verify_files
from tests.support.images import Pixels, encode
from tests.support.predictors import CLASS_NAMES, RGB, Convolutional, predictor
from training.data.pixel_store import as_planes
from training.errors import ExportError
from training.export.export import Provenance, export
from training.export.predictor import Predictor

pytestmark = pytest.mark.slow

PROVENANCE = Provenance(
    architecture="convolutional",
    training_data=TrainingData(name="nothing", licence="CC0-1.0", image_count=0),
    licence="Apache-2.0",
    source="https://example.org/weights",
    metrics={"test_accuracy": 0.25},
    seeds={"weights": 0},
)


@pytest.fixture
def golden_images(cat: Pixels, small_cat: Pixels) -> list[bytes]:
    """A JPEG and a PNG."""
    return [encode(cat, "JPEG", quality=80), encode(small_cat, "PNG")]


def _load(folder: Path) -> tuple[torch.jit.ScriptModule, dict[str, str]]:
    extra_files: dict[str, bytes | str] = {MANIFEST_FILE: "", GOLDEN_FILE: ""}
    loaded = torch.jit.load(str(folder / MODEL_FILE), _extra_files=extra_files)  # type: ignore[no-untyped-call]
    return loaded, {name: text.decode() if isinstance(text, bytes) else text for name, text in extra_files.items()}


@pytest.mark.parametrize("grey", [False, True], ids=["rgb", "grey"])
def test_the_published_file_computes_what_the_eager_model_does(
    tmp_path: Path, golden_images: list[bytes], photos: dict[str, Pixels], grey: bool
) -> None:
    module = predictor(grey=grey, temperature=2.0)
    folder = export(module, store_root=tmp_path, name="cats", golden_images=golden_images, provenance=PROVENANCE)
    assert folder == ModelStore(tmp_path).resolve("cats")
    loaded, _ = _load(folder)
    assert not loaded.training
    for pixels in photos.values():
        x = torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0)
        torch.testing.assert_close(loaded(x), module(x), rtol=0, atol=1e-6)


def test_the_manifest_says_what_was_published(tmp_path: Path, golden_images: list[bytes]) -> None:
    module = predictor(image_size=28, resize_size=32, temperature=2.0)
    folder = export(module, store_root=tmp_path, name="cats", golden_images=golden_images, provenance=PROVENANCE)
    manifest = Manifest.read(folder)
    verify_files(folder, manifest)
    assert (manifest.name, manifest.version, manifest.class_names) == ("cats", 1, tuple(CLASS_NAMES))
    preprocessing = manifest.preprocessing
    assert (preprocessing.image_size, preprocessing.resize_size, preprocessing.temperature) == (28, 32, 2.0)
    assert preprocessing.mean == pytest.approx(RGB["mean"])
    assert preprocessing.std == pytest.approx(RGB["std"])
    parameters = 3 * 4 * 5 * 5 + 4 + 4 * 3 + 3
    assert (manifest.architecture.name, manifest.architecture.parameter_count) == ("convolutional", parameters)
    assert manifest.training_data == PROVENANCE.training_data
    assert (manifest.licence, manifest.source) == (PROVENANCE.licence, PROVENANCE.source)
    assert (manifest.metrics, manifest.seeds) == (PROVENANCE.metrics, PROVENANCE.seeds)
    assert manifest.library_versions["torch"] == torch.__version__.partition("+")[0]
    assert manifest.fidelity.golden_count == 2
    assert 0 <= manifest.fidelity.max_abs_deviation <= 1e-5
    assert manifest.files.keys() == {MODEL_FILE, ONNX_FILE}


def test_the_manifest_inside_is_the_one_outside_but_for_the_files(tmp_path: Path, golden_images: list[bytes]) -> None:
    folder = export(predictor(), store_root=tmp_path, name="cats", golden_images=golden_images, provenance=PROVENANCE)
    _, extra_files = _load(folder)
    outside = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    inside = json.loads(extra_files[MANIFEST_FILE])
    assert outside.pop("files").keys() == {MODEL_FILE, ONNX_FILE}
    assert inside.pop("files") == {}
    assert inside == outside


def test_the_golden_examples_are_the_eager_models_answers(tmp_path: Path, golden_images: list[bytes]) -> None:
    module = predictor()
    folder = export(module, store_root=tmp_path, name="cats", golden_images=golden_images, provenance=PROVENANCE)
    _, extra_files = _load(folder)
    golden = GoldenExamples.model_validate_json(extra_files[GOLDEN_FILE])
    assert [example.image for example in golden.examples] == golden_images
    for example in golden.examples:
        expected = module(as_planes(decode(example.image).to_array()).unsqueeze(0))[0]
        assert torch.equal(torch.tensor(example.probabilities), expected)


def test_publishing_again_makes_the_next_version(tmp_path: Path, golden_images: list[bytes]) -> None:
    for version in (1, 2):
        folder = export(
            predictor(), store_root=tmp_path, name="cats", golden_images=golden_images, provenance=PROVENANCE
        )
        assert folder == tmp_path / "cats" / str(version)
        _, extra_files = _load(folder)
        assert json.loads(extra_files[MANIFEST_FILE])["version"] == version


class DifferentWhenScripted(nn.Module):
    """Computes something else, or nothing, once compiled."""

    def __init__(self, scripted_logit: float) -> None:
        super().__init__()
        self.scripted_logit = scripted_logit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits `(N, 3)`."""
        logits = torch.zeros(x.shape[0], 3)
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            logits[:, 0] = self.scripted_logit
        return logits


@pytest.mark.parametrize("logit", [0.001, 10.0, float("nan")], ids=["slightly", "wholly", "nan"])
def test_a_model_that_deviates_once_scripted_is_not_published(
    tmp_path: Path, golden_images: list[bytes], logit: float
) -> None:
    module = Predictor(DifferentWhenScripted(logit), CLASS_NAMES, image_size=28, mean=[0.5], std=[0.5])
    with pytest.raises(ExportError, match="deviates from the eager one"):
        export(module, store_root=tmp_path, name="cats", golden_images=golden_images, provenance=PROVENANCE)
    assert ModelStore(tmp_path).names() == []
    assert list((tmp_path / "cats").iterdir()) == []


def test_a_model_of_other_classes_than_it_names_is_not_published(tmp_path: Path, golden_images: list[bytes]) -> None:
    module = Predictor(Convolutional(), CLASS_NAMES[:2], image_size=28, mean=[0.5] * 3, std=[0.5] * 3)
    with pytest.raises(ExportError, match="3 probabilities, but 2 class names"):
        export(module, store_root=tmp_path, name="cats", golden_images=golden_images, provenance=PROVENANCE)
    assert ModelStore(tmp_path).names() == []


class NotANumber(nn.Module):
    """What training that diverged leaves behind."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits `(N, 3)` without a value."""
        return torch.full([x.shape[0], 3], float("nan"))


def test_a_model_without_probabilities_is_not_published(tmp_path: Path, golden_images: list[bytes]) -> None:
    module = Predictor(NotANumber(), CLASS_NAMES, image_size=28, mean=[0.5] * 3, std=[0.5] * 3)
    with pytest.raises(ExportError, match="NaN"):
        export(module, store_root=tmp_path, name="cats", golden_images=golden_images, provenance=PROVENANCE)
    assert ModelStore(tmp_path).names() == []


def test_a_model_left_in_training_mode_is_published_in_eval_mode(tmp_path: Path, golden_images: list[bytes]) -> None:
    module = predictor()
    module.train()
    folder = export(module, store_root=tmp_path, name="cats", golden_images=golden_images, provenance=PROVENANCE)
    loaded, _ = _load(folder)
    x = torch.zeros(1, 3, 28, 28)
    assert torch.equal(loaded(x), loaded(x)), "dropout is at work"


def test_without_golden_images_nothing_is_published(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="golden image"):
        export(predictor(), store_root=tmp_path, name="cats", golden_images=[], provenance=PROVENANCE)
    assert list(tmp_path.iterdir()) == []
