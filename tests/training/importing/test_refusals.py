"""What the files of a model say and the service cannot compute is refused, and never replaced silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from app.store.manifest import Preprocessing
from training.errors import SourceError
from training.importing.hugging_face import CONFIG_FILE, _preprocessing, read_folder
from training.importing.onnx_file import answers, read_classifier
from training.importing.preprocessing import Given, interpolation_named
from training.importing.weights import fitted, read_tensors

pytestmark = pytest.mark.slow

PLAIN = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3, "size": {"height": 64, "width": 64}}
MEAN = (0.5,) * 3


def sized(
    image_size: int, resize_size: int, mean: tuple[float, ...], std: tuple[float, ...], *geometry: str
) -> Preprocessing:
    """Preprocessing in few words."""
    interpolation, fit = geometry + ("bilinear", "crop")[len(geometry) :]
    return Preprocessing(
        image_size=image_size,
        resize_size=resize_size,
        mean=mean,
        std=std,
        interpolation=interpolation,  # type: ignore[arg-type]
        fit=fit,  # type: ignore[arg-type]
    )


def described(folder: Path, **changes: Any) -> Preprocessing | None:
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(PLAIN | changes))
    return _preprocessing(path)


def test_processors_of_hugging_face_are_read(tmp_path: Path) -> None:
    squashed = sized(64, 64, MEAN, MEAN, "bicubic", "squash")
    assert described(tmp_path) == squashed
    assert described(tmp_path, size=64, do_normalize=True) == squashed
    assert described(tmp_path, do_normalize=False) == sized(64, 64, (0,) * 3, (1,) * 3, "bicubic", "squash")
    cropped = described(tmp_path, size={"shortest_edge": 80}, do_center_crop=True, crop_size=64, resample=2)
    assert cropped == sized(64, 80, MEAN, MEAN)
    large = described(tmp_path, size={"shortest_edge": 384}, image_processor_type="ConvNextImageProcessor")
    assert large == sized(384, 384, MEAN, MEAN, "bicubic", "squash")
    assert _preprocessing(tmp_path / "missing.json") is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rescale_factor": 1 / 127.5}, "and not by 1/255"),
        ({"do_rescale": False}, "scales samples by 1, and not by 1/255"),
        ({"do_resize": False}, "does not resize its images"),
        ({"image_mean": None}, "is not the configuration of an image processor"),
        ({"size": "large"}, "only squares are computed here"),
        ({"resample": 1}, "only bilinear and bicubic are computed here"),
        ({"size": {"height": 64, "width": 96}}, "only squares are computed here"),
        ({"do_center_crop": True}, "resizes each side by itself and then cuts out the centre"),
    ],
)
def test_processor_that_cannot_be_computed_is_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SourceError, match=sentence):
        described(tmp_path, **changes)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [("{", "is not JSON"), ("[]", "is not an object"), (None, "cannot be read"),
     ('{"architectures": ["ViTForImageClassification"], "model_type": "vit"}', "cannot be read by transformers")],
)  # fmt: skip
def test_folder_that_is_not_whole_is_refused(tmp_path: Path, config: str | None, sentence: str) -> None:
    if config:
        (tmp_path / CONFIG_FILE).write_text(config)
    with pytest.raises(SourceError, match=sentence):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"std": (0.0, 1.0, 1.0)}, "std must be positive"),
        ({"std": (1.0, 1.0)}, "1 or 3 values, not 3 and 2"),
        ({"mean": (float("nan"),) * 3}, "mean must be finite"),
        ({"resize_size": 16}, "between 1 and resize_size \\(16\\)"),
    ],
)
def test_numbers_that_prepare_no_image_are_refused(changes: dict[str, Any], sentence: str) -> None:
    given: dict[str, Any] = {"image_size": 32, "mean": MEAN, "std": MEAN} | changes
    for own in (None, sized(64, 64, MEAN, MEAN)):
        with pytest.raises(SourceError, match=sentence):
            Given(**given).over(own)


def test_what_neither_file_nor_caller_says_is_asked_for() -> None:
    with pytest.raises(SourceError, match="give --image-size, --std"):
        Given(mean=MEAN).over(None)
    assert Given(64, mean=MEAN, std=MEAN).over(None) == sized(64, 64, MEAN, MEAN)
    assert Given(fit="squash").over(sized(64, 80, MEAN, MEAN)).fit == "squash"
    assert interpolation_named("bicubic") == "bicubic"


def model_of(
    shape: list[Any], *, element: int = TensorProto.FLOAT, inputs: int = 1, value: float = 1.0
) -> onnx.ModelProto:
    given = [helper.make_tensor_value_info(f"x{number}", element, shape) for number in range(inputs)]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["y"])], "constant", given,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(np.full((1, 3), value, dtype=np.float32), "c")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (model_of(["n", 3, 8, 8], inputs=2), "takes 2 inputs"),
        (model_of(["n", 3, 8, 8], element=TensorProto.INT64), "takes INT64"),
        (model_of(["n", 1, 8, 8]), "and not RGB images"),
        (model_of(["n", 3, 8, 16]), "only squares are computed here"),
    ],
)
def test_onnx_that_takes_something_else_is_refused(tmp_path: Path, model: onnx.ModelProto, sentence: str) -> None:
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(SourceError, match=sentence):
        read_classifier(tmp_path / "m.onnx")


def test_onnx_that_gives_nan_is_refused(tmp_path: Path) -> None:
    onnx.save(model_of(["n", 3, 8, 8], value=float("nan")), tmp_path / "m.onnx")
    classifier = read_classifier(tmp_path / "m.onnx")
    with pytest.raises(SourceError, match="gives NaN"):
        answers(classifier, np.zeros((1, 8, 8, 3), np.uint8), sized(8, 8, MEAN, MEAN))


@pytest.mark.parametrize(
    ("package", "sentence"),
    [
        ("ultralytics.nn.tasks", "export"),
        ("fastai.learner", "learn.model.state_dict"),
        ("lightning.pytorch", "state_dict"),
    ],
)
def test_objects_of_other_trainers_are_named_with_the_way_to_export_them(
    tmp_path: Path, package: str, sentence: str
) -> None:
    (tmp_path / "x.pt").write_bytes(b"\x80\x02c" + package.encode() + b"\nModel\n.")
    with pytest.raises(
        SourceError, match=rf"objects of {package.partition('.')[0]}, which are never loaded.*{sentence}"
    ):
        read_tensors(tmp_path / "x.pt")


def test_file_without_tensors_and_damaged_safetensors_are_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(SourceError, match="holds no tensors by name, but a list"):
        read_tensors(tmp_path / "list.pt")
    with pytest.raises(SourceError, match="cannot be read as safetensors"):
        read_tensors(tmp_path / "x.safetensors")


def test_prefixes_of_wrappers_are_taken_off() -> None:
    tensor = torch.zeros(1)
    assert fitted({"module._orig_mod.fc.weight": tensor}, ["fc.weight"]).keys() == {"fc.weight"}
    assert fitted({"model.fc.weight": tensor, "loss.weight": tensor}, ["fc.weight"]).keys() == {"fc.weight"}
    assert fitted({"fc.weight": tensor}, ["fc.weight"]).keys() == {"fc.weight"}
    assert fitted({"model.fc.weight": tensor}, ["model.fc.weight"]).keys() == {"model.fc.weight"}
