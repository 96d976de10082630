"""The package `evaluation`: a run's model is tested once, and a published model on a folder of images."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

import training.__main__ as command_line
from app.errors import UnknownModelError
from app.store.manifest import Manifest, TrainingData
from app.store.model_store import PIN_FILE, ModelStore
from app.store.publishing import published_versions
from training.data.prepared import prepare_data
from training.errors import DataError, RunError
from training.evaluation.evaluate import RunEvaluation, evaluate_run, load_predictions, predict
from training.evaluation.published import evaluate_published
from training.export.export import Provenance, export
from training.export.predictor import Predictor
from training.export.publish import run_predictor
from training.runs.run_folder import RunFolder

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}


class BrightestChannel(nn.Module):
    """Knows red, green and blue, in that order."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 8 * x.mean(dim=(2, 3))


def _png(colour: tuple[int, int, int]) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (20, 14), colour).save(encoded, "PNG")
    return encoded.getvalue()


class DarkestChannel(nn.Module):
    """Is always wrong about red, green and blue."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -8 * x.mean(dim=(2, 3))


def _publish(model: nn.Module, store_root: Path) -> None:
    export(
        Predictor(model, list(COLOURS), image_size=8, mean=[0.5] * 3, std=[0.5] * 3),
        store_root=store_root,
        name="colours",
        golden_images=[_png((200, 20, 20))],
        provenance=Provenance(architecture="brightest", training_data=TrainingData(name="colours")),
        onnx=False,
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    _publish(BrightestChannel(), tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    # By position, "blue" would be the first class: its place in the folder is not its place in the model.
    for class_name in ("blue", "red"):
        (tmp_path / "photos" / class_name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "photos" / class_name / f"{number}.png").write_bytes(_png(COLOURS[class_name]))
    return tmp_path / "photos"


def test_run_is_measured_on_its_test_split_with_the_temperature_of_validation(digits_run: RunFolder) -> None:
    evaluation, predictions = RunEvaluation.read(digits_run), load_predictions(digits_run)
    data = prepare_data(digits_run.config(), digits_run.path)
    assert evaluation.test.image_count == len(data.split.test) == len(predictions.labels)
    assert predictions.labels.tolist() == [data.source.labels[index] for index in data.split.test]

    validation = predict(run_predictor(digits_run), data.evaluation_batches("val"))
    temperature = evaluation.calibration.temperature
    nll = float(functional.cross_entropy(validation.logits / temperature, validation.labels))
    assert nll == pytest.approx(evaluation.calibration.val_nll_after, rel=1e-3)
    expected = torch.softmax(predictions.logits / temperature, dim=1)
    assert float((predictions.probabilities - expected).abs().max()) < 1e-6


def test_test_accuracy_is_far_above_the_baselines(digits_run: RunFolder) -> None:
    test = RunEvaluation.read(digits_run).test
    assert test.accuracy_interval[0] > 3 * test.majority_accuracy


def test_mistakes_are_the_most_confident_wrong_answers(digits_run: RunFolder) -> None:
    predictions = load_predictions(digits_run)
    confidences, answers = predictions.probabilities.max(dim=1)
    wrong = (answers != predictions.labels).nonzero()[:, 0]
    expected = wrong[confidences[wrong].argsort(descending=True)][: len(predictions.mistakes)]
    assert confidences[predictions.mistakes].tolist() == confidences[expected].tolist()
    assert predictions.mistake_images.shape == (len(predictions.mistakes), 3, 16, 16)


def test_evaluating_again_gives_the_same_figures(digits_run: RunFolder) -> None:
    assert evaluate_run(digits_run) == RunEvaluation.read(digits_run)


def test_run_without_an_evaluation_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"evaluation\.json cannot be read"):
        RunEvaluation.read(RunFolder(tmp_path))


def test_folders_are_matched_to_classes_by_name_never_by_position(store: Path, photos: Path) -> None:
    evaluation = evaluate_published("colours/1", photos, store_root=store)
    assert evaluation.metrics.accuracy == 1.0
    assert [row.image_count for row in evaluation.metrics.classes] == [3, 0, 3]


def test_name_alone_means_the_version_that_serves(store: Path, photos: Path) -> None:
    _publish(DarkestChannel(), store)

    def measured(model: str) -> tuple[int, float]:
        evaluation = evaluate_published(model, photos, store_root=store)
        return evaluation.manifest.version, evaluation.metrics.accuracy

    assert measured("colours") == (2, 0.0)
    ModelStore(store).pin("colours", 1)
    assert measured("colours") == (1, 1.0)
    assert measured("colours/2") == (2, 0.0)
    ModelStore(store).unpin("colours")
    assert measured("colours") == (2, 0.0)


def test_what_is_passed_over_is_counted(
    store: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = next((photos / "red").iterdir())
    for name in ("@eaDir/x.png", "__MACOSX/._x.png", "loose.png"):
        (photos / name).parent.mkdir(exist_ok=True)
        shutil.copy(photo, photos / name)
    shutil.copy(photo, photos / "red" / "._x.png")
    (photos / "red" / "gone.png").symlink_to("nowhere")
    command_line.main(["evaluate", "--model", "colours", "--data", str(photos), "--store", str(store)])
    told = capsys.readouterr().out
    assert "3 files left out, such as @eaDir: hidden, or left there by a system or a storage device." in told
    assert "1 file left out, such as loose.png: not in a class folder." in told
    assert "1 file left out, such as red/gone.png: a link to something that is not there" in told


def test_unreadable_file_is_listed_and_left_out(store: Path, photos: Path) -> None:
    (photos / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (photos / "red" / ".hidden").write_bytes(b"")
    evaluation = evaluate_published("colours", photos, store_root=store)
    assert [path.name for path, _ in evaluation.unreadable] == ["broken.jpg"]
    assert evaluation.metrics.image_count == 6


def test_unknown_class_is_an_error_with_the_nearest_name(store: Path, photos: Path) -> None:
    (photos / "gren").mkdir()
    with pytest.raises(DataError, match=r"gren is not a class of colours/1\. Did you mean 'green'"):
        evaluate_published("colours", photos, store_root=store)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [("colors", "Published there: colours"), ("colours/7", r"has no version 7\. Published versions: 1")],
)
def test_unknown_model_is_an_error_that_names_those_that_there_are(
    store: Path, photos: Path, model: str, sentence: str
) -> None:
    with pytest.raises(UnknownModelError, match=sentence):
        evaluate_published(model, photos, store_root=store)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("colours/7", r"Error: Model 'colours' has no version 7\."),
        ("colours/new", r"Error: 'colours/new' is neither NAME nor NAME/VERSION"),
        ("colours", r"Error: .*pinned holds 'one', not a version"),
    ],
)
def test_evaluate_command_says_why_a_model_cannot_be_measured(
    store: Path, photos: Path, model: str, sentence: str
) -> None:
    (store / "colours" / PIN_FILE).write_text("one")
    with pytest.raises(SystemExit, match=sentence):
        command_line.main(["evaluate", "--model", model, "--data", str(photos), "--store", str(store)])


def test_folder_without_images_is_an_error(store: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no images"):
        evaluate_published("colours", tmp_path / "empty", store_root=store)


def test_export_publishes_the_next_version_with_metrics_and_twin(digits_run: RunFolder, tmp_path: Path) -> None:
    arguments = ["export", str(digits_run.path), "--name", "copied", "--store", str(tmp_path)]
    command_line.main(arguments)
    command_line.main([*arguments, "--checkpoint", "last", "--no-onnx"])
    assert published_versions(tmp_path / "copied") == [1, 2]

    manifest = Manifest.read(tmp_path / "copied" / "1")
    evaluation = RunEvaluation.read(digits_run)
    assert manifest.metrics["test_accuracy"] == evaluation.test.accuracy
    assert manifest.preprocessing.temperature == pytest.approx(evaluation.calibration.temperature)
    assert set(manifest.files) == {"model.pt", "model.onnx"}
    assert manifest.seeds == {"run": 0}

    last = torch.jit.load(str(tmp_path / "copied" / "2" / "model.pt"))  # type: ignore[no-untyped-call]
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    data = prepare_data(digits_run.config(), digits_run.path)
    eager = run_predictor(
        digits_run, checkpoint="last", temperature=Manifest.read(tmp_path / "copied" / "2").preprocessing.temperature
    )
    assert data.class_names == tuple(last.class_names)
    assert np.allclose(last.classify(images).numpy(), eager.classify(images).numpy(), atol=1e-5)


def test_evaluate_command_prints_and_writes_the_figures(
    store: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "figures.json"
    command_line.main(
        ["evaluate", "--model", "colours", "--data", str(photos), "--store", str(store), "--output", str(output)]
    )
    assert "Accuracy       100.00 %  (61.0 to 100.0)" in capsys.readouterr().out
    assert json.loads(output.read_text())["accuracy"] == 1.0
