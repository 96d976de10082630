"""What was trained elsewhere is answered as its own library answers, or not published, with a sentence."""

from __future__ import annotations

import json
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import skimage.data
import timm
import torch
import transformers
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import save_file
from starlette.testclient import TestClient
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from torch import nn
from torchvision import models, transforms

from app.main import create_app
from app.settings import Settings
from app.store.manifest import Manifest
from tests.support.images import Pixels, encode
from training.__main__ import main

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of exporters and of transformers

NAMES = [f"class {number}" for number in range(7)]
Answer = Callable[[Image.Image], npt.NDArray[np.float32]]


@pytest.fixture(scope="module", autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(NAMES))
    return path


def sharpened(network: nn.Module, size: int = 96) -> nn.Module:
    """Returns a network with random weights whose answers depend on its input as a trained one's do."""
    for module in network.modules():
        if (
            isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
        ):  # as after training: not the identity
            module.running_mean.copy_(0.1 * torch.randn_like(module.running_mean))
    last = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    pixels = np.asarray(Image.fromarray(skimage.data.chelsea()).resize((size, size)))  # type: ignore[no-untyped-call]
    photo = torch.from_numpy(pixels.copy()).permute(2, 0, 1).unsqueeze(0) / 64 - 2
    network.eval()
    with torch.no_grad():
        logits = network(photo)
        spread = getattr(logits, "logits", logits).std()
        for parameter in last.parameters():
            parameter.mul_(0.7 / spread)
    return network


def probabilities_of(network: nn.Module, prepare: Callable[[Image.Image], Any]) -> Answer:
    def answer(photo: Image.Image) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            found: npt.NDArray[np.float32] = network(prepare(photo).unsqueeze(0)).softmax(dim=1)[0].numpy()
        return found

    return answer


def timm_with_bicubic_and_other_mean(folder: Path) -> tuple[list[str], Answer]:
    network = sharpened(timm.create_model("tf_efficientnet_lite0.in1k", num_classes=7))
    torch.save(network.state_dict(), folder / "weights.pth")
    own: dict[str, Any] = resolve_data_config({}, model=network)  # type: ignore[no-untyped-call]
    assert (own["interpolation"], own["mean"]) == ("bicubic", (0.5, 0.5, 0.5))
    prepare = create_transform(**own)
    return [str(folder / "weights.pth"), "--architecture", "timm:tf_efficientnet_lite0.in1k"], probabilities_of(
        network, prepare
    )


def torchvision_inside_a_checkpoint(folder: Path) -> tuple[list[str], Answer]:
    network = sharpened(models.resnet18(num_classes=7))
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}}, folder / "last.pt")
    prepare = models.get_model_weights("resnet18").DEFAULT.transforms()
    return [str(folder / "last.pt"), "--architecture", "torchvision:resnet18"], probabilities_of(network, prepare)


def safetensors_with_preprocessing_given(folder: Path) -> tuple[list[str], Answer]:
    network = sharpened(timm.create_model("resnet10t", num_classes=7))
    save_file(network.state_dict(), folder / "model.safetensors")
    prepare = transforms.Compose([
        transforms.Resize(120), transforms.CenterCrop(96), transforms.ToTensor(),
        transforms.Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)),
    ])  # fmt: skip
    given = ["--image-size", "96", "--resize-size", "120", "--interpolation", "bilinear",
             "--mean", "[0.4,0.5,0.6]", "--std", "[0.2,0.25,0.3]"]  # fmt: skip
    return [str(folder / "model.safetensors"), "--architecture", "timm:resnet10t", *given], probabilities_of(
        network, prepare
    )


def hugging_face(folder: Path, classifier: Any, processor: Any) -> tuple[list[str], Answer]:
    sharpened(classifier, 64)
    classifier.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")

    def answer(photo: Image.Image) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            logits = classifier(**processor(images=photo, return_tensors="pt")).logits
        found: npt.NDArray[np.float32] = logits.softmax(dim=1)[0].numpy()
        return found

    return [str(folder / "model")], answer


def vit_of_hugging_face(folder: Path) -> tuple[list[str], Answer]:
    """It resizes each side by itself."""
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=64, patch_size=16,
        id2label=dict(enumerate(NAMES)), label2id={name: number for number, name in enumerate(NAMES)},
    )  # fmt: skip
    processor = transformers.ViTImageProcessorPil(size={"height": 64, "width": 64})
    return hugging_face(folder, transformers.ViTForImageClassification(config), processor)


def convnext_of_hugging_face(folder: Path) -> tuple[list[str], Answer]:
    config = transformers.ConvNextConfig(
        hidden_sizes=[16, 32, 64, 64], depths=[1, 1, 1, 1],
        id2label=dict(enumerate(NAMES)), label2id={name: number for number, name in enumerate(NAMES)},
    )  # fmt: skip
    processor = transformers.ConvNextImageProcessorPil(size={"shortest_edge": 64}, resample=3, crop_pct=0.875)
    return hugging_face(folder, transformers.ConvNextForImageClassification(config), processor)


def onnx_of_torch(folder: Path, *, batch: str | None) -> tuple[list[str], Answer]:
    """Logits from float images, channels first, by torch's older exporter."""
    network = sharpened(models.squeezenet1_1(num_classes=7))
    free = {"x": {0: batch}, "y": {0: batch}} if batch else None
    torch.onnx.export(
        network, (torch.rand(1, 3, 96, 96),), str(folder / "model.onnx"), dynamo=False, input_names=["x"],
        output_names=["y"], dynamic_axes=free,
    )  # fmt: skip
    prepare = transforms.Compose([
        transforms.Resize(120), transforms.CenterCrop(96), transforms.ToTensor(),
        transforms.Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)),
    ])  # fmt: skip
    given = ["--resize-size", "120", "--mean", "[0.4,0.5,0.6]", "--std", "[0.2,0.25,0.3]"]
    return [str(folder / "model.onnx"), *given], probabilities_of(network, prepare)


def onnx_by_hand(folder: Path) -> tuple[list[str], Answer]:
    """Probabilities from bytes, channels last, as TensorFlow's converters write: mean colour -> linear -> softmax."""
    weights = np.random.default_rng(0).normal(0, 0.05, (3, 7)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
         helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0),
         helper.make_node("MatMul", ["m", "w"], ["l"]), helper.make_node("Softmax", ["l"], ["y"], axis=1)],
        "colours", [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", 32, 32, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 7])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([1, 2]), "axes")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "m.onnx")
    session = onnxruntime.InferenceSession(str(folder / "m.onnx"), providers=["CPUExecutionProvider"])

    def answer(photo: Image.Image) -> npt.NDArray[np.float32]:
        small = transforms.CenterCrop(32)(transforms.Resize(32)(photo))
        found: npt.NDArray[np.float32] = session.run(None, {"x": np.asarray(small)[None]})[0][0]
        return found

    return [str(folder / "m.onnx")], answer


SOURCES = {
    "timm": timm_with_bicubic_and_other_mean,
    "torchvision": torchvision_inside_a_checkpoint,
    "safetensors": safetensors_with_preprocessing_given,
    "vit": vit_of_hugging_face,
    "convnext": convnext_of_hugging_face,
    "onnx": lambda folder: onnx_of_torch(folder, batch="n"),
    "onnx of one image": lambda folder: onnx_of_torch(folder, batch=None),
    "onnx of bytes": onnx_by_hand,
}


@pytest.fixture(scope="module", params=SOURCES)
def imported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TestClient, Answer]]:
    """A service of a model that was imported, and what its own library answers."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "labels.txt").write_text("\n".join(NAMES))
    arguments, answer = SOURCES[request.param](folder)
    main(
        [
            "import",
            *arguments,
            "--name",
            "mine",
            "--labels",
            str(folder / "labels.txt"),
            "--store",
            str(folder / "store"),
        ]
    )
    settings = Settings(model="mine", model_store=folder / "store")
    with TestClient(create_app(settings)) as client:
        deadline = time.monotonic() + 60
        while client.get("/health/startup").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield client, answer


@pytest.mark.parametrize("name", ["cat", "china", "flower"])
def test_service_answers_as_the_models_own_library(
    imported: tuple[TestClient, Answer], photos: dict[str, Pixels], name: str
) -> None:
    client, answer = imported
    response = client.post(f"/predict?top_k={len(NAMES)}", content=encode(photos[name], "PNG"))
    assert response.status_code == 200, response.text
    served = {each["class_name"]: each["probability"] for each in response.json()["predictions"]}
    expected = answer(Image.fromarray(photos[name]))

    np.testing.assert_allclose([served[each] for each in NAMES], expected, rtol=0, atol=1e-4)
    assert expected.max() < 0.9999, "so sure an answer would show no difference"


def test_what_is_imported_is_verified_and_may_be_asked_for_many_at_once(
    imported: tuple[TestClient, Answer], photos: dict[str, Pixels]
) -> None:
    client, _ = imported
    description = client.get("/models/mine").json()
    assert description["verified"] is True
    assert description["golden_check"]["max_abs_deviation"] <= 1e-3
    files = [("files", encode(photos[name], "PNG")) for name in ("cat", "china", "flower")]
    together = client.post("/predict/batch?top_k=1", files=files).json()["results"]
    alone = [client.post("/predict?top_k=1", content=content).json() for _, content in files]

    for one, other in zip(together, alone, strict=True):
        assert one["predictions"][0]["class_id"] == other["predictions"][0]["class_id"]


def test_another_filter_is_another_answer(tmp_path: Path, photos: dict[str, Pixels], labels: Path) -> None:
    """The negative control: were bicubic taken for bilinear, the comparison above would show it."""
    arguments, answer = timm_with_bicubic_and_other_mean(tmp_path)
    store = ["--name", "mine", "--labels", str(labels), "--store", str(tmp_path / "store")]
    main(["import", *arguments, *store, "--interpolation", "bilinear"])
    manifest = Manifest.read(tmp_path / "store" / "mine" / "1")
    assert (manifest.preprocessing.interpolation, manifest.format_version) == ("bilinear", 1)
    main(["import", *arguments, *store])
    manifest = Manifest.read(tmp_path / "store" / "mine" / "2")
    assert (manifest.preprocessing.interpolation, manifest.format_version) == ("bicubic", 2)

    served = {}
    for version in (1, 2):
        with TestClient(create_app(Settings(model=f"mine/{version}", model_store=tmp_path / "store"))) as client:
            while client.get("/health/startup").status_code != 200:
                time.sleep(0.01)
            found = client.post("/predict?top_k=7", content=encode(photos["cat"], "PNG")).json()["predictions"]
        served[version] = np.array([p["probability"] for p in sorted(found, key=lambda each: each["class_id"])])
    expected = answer(Image.fromarray(photos["cat"]))
    assert np.abs(served[1] - expected).max() > 1e-3
    assert np.abs(served[2] - expected).max() < 1e-4


class Opened:
    """An object of a class of its own, which pickle would import and build."""

    built: ClassVar[list[str]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return Opened.built.append, ("executed",)


def whole_module(folder: Path) -> list[str]:
    torch.save(models.squeezenet1_1(), folder / "x.pt")
    return [str(folder / "x.pt"), "--architecture", "torchvision:squeezenet1_1"]


def hostile_pickle(folder: Path) -> list[str]:
    (folder / "x.pth").write_bytes(pickle.dumps(Opened()))
    return [str(folder / "x.pth"), "--architecture", "torchvision:resnet18"]


def torchscript(folder: Path) -> list[str]:
    torch.jit.script(nn.Linear(3, 3)).save(str(folder / "x.pt"))  # type: ignore[no-untyped-call]
    return [str(folder / "x.pt"), "--architecture", "torchvision:resnet18"]


def weights_of_another(folder: Path) -> list[str]:
    torch.save(models.resnet18(num_classes=7).state_dict(), folder / "x.pth")
    return [str(folder / "x.pth"), "--architecture", "torchvision:resnet34"]


def without_architecture(folder: Path) -> list[str]:
    return weights_of_another(folder)[:1]


def unknown_architecture(folder: Path) -> list[str]:
    return [*weights_of_another(folder)[:2], "timm:resnet1"]


def too_few_labels(folder: Path) -> list[str]:
    torch.save(models.resnet18(num_classes=9).state_dict(), folder / "x.pth")
    return [str(folder / "x.pth"), "--architecture", "torchvision:resnet18"]


def onnx_without_mean(folder: Path) -> list[str]:
    return onnx_of_torch(folder, batch="n")[0][:1]


def not_onnx(folder: Path) -> list[str]:
    (folder / "x.onnx").write_bytes(b"nonsense")
    return [str(folder / "x.onnx")]


def detector_of_hugging_face(folder: Path) -> list[str]:
    (folder / "config.json").write_text(json.dumps({"architectures": ["DetrForObjectDetection"]}))
    return [str(folder)]


def no_file(folder: Path) -> list[str]:
    return [str(folder / "missing.pth")]


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (whole_module, "holds more than tensors, and nothing of it is executed here"),
        (hostile_pickle, "nothing of it is executed here"),
        (torchscript, "is TorchScript, which is served as it is: image-predictor serve --model"),
        (weights_of_another, "The weights do not fit torchvision:resnet34"),
        (without_architecture, "give --architecture timm:NAME or torchvision:NAME"),
        (unknown_architecture, "timm has no model 'resnet1'. Did you mean"),
        (too_few_labels, "9 probabilities, but 7 class names"),
        (onnx_without_mean, "give --mean, --std"),
        (not_onnx, "cannot be read as ONNX"),
        (detector_of_hugging_face, "is not of an image classifier"),
        (no_file, "There is no file or folder"),
    ],
)
def test_mistake_is_a_sentence_and_publishes_nothing(
    tmp_path: Path, labels: Path, mistake: Callable[[Path], list[str]], sentence: str
) -> None:
    store = tmp_path / "store"
    with pytest.raises(SystemExit) as ended, warnings.catch_warnings():
        main(["import", *mistake(tmp_path), "--name", "mine", "--labels", str(labels), "--store", str(store)])

    assert sentence in str(ended.value)
    assert not list(store.glob("mine/[0-9]*"))
    assert Opened.built == []


def test_labels_are_asked_for_where_nothing_says_them(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"does not say what its classes are called: give --labels labels\.txt"):
        main(["import", *too_few_labels(tmp_path), "--name", "mine", "--store", str(tmp_path / "store")])
