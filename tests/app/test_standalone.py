"""Plain TorchScript, as course notes and older projects export it, is served per image and marked `unverified`."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import transforms

from tests.support.colours import StartApp, colour_image, colour_predictor
from training.data.pixel_store import as_planes

pytestmark = pytest.mark.slow


class CourseNotesPredictor(nn.Module):
    """The usual standalone predictor: transforms in an `nn.Sequential`, no gradient, softmax."""

    def __init__(self, model: nn.Module, class_names: list[str], mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.model = model.eval()
        self.class_names = class_names
        self.transforms = nn.Sequential(
            transforms.Resize([32], antialias=True),
            transforms.CenterCrop([28]),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize(mean, std),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = self.transforms(x)
            x = self.model(x)
            return functional.softmax(x, dim=1)


NAMES = ["red", "green", "blue"]


def network() -> nn.Module:
    """Mean of each channel, as convolution, pooling and a linear layer would find it."""
    convolution = nn.Conv2d(3, 3, 1, bias=False)
    with torch.no_grad():
        convolution.weight.copy_(2 * torch.eye(3).view(3, 3, 1, 1))
    return nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def save(module: nn.Module, path: Path) -> Path:
    """Scripts and saves as the notes do."""
    torch.jit.script(module).save(str(path))  # type: ignore[no-untyped-call]
    return path


@pytest.fixture
def standalone(tmp_path: Path) -> Path:
    return save(CourseNotesPredictor(network(), NAMES, [0.5] * 3, [0.25] * 3), tmp_path / "standalone_model.pt")


def test_plain_predictor_is_served_unverified(start_app: StartApp, standalone: Path) -> None:
    client = start_app(model=str(standalone))
    description = client.get("/models/standalone_model").json()
    answer = client.post("/predict", content=colour_image("blue", width=70, height=40)).json()

    assert client.get("/health/ready").status_code == 200
    assert (description["verified"], description["version"]) == (False, "unversioned")
    assert description["golden_check"] is None
    assert description["manifest"] is None
    assert answer["predictions"][0]["class_name"] == "blue"
    assert (answer["model"], answer["version"]) == ("standalone_model", "unversioned")


def test_path_with_a_comma_is_served(start_app: StartApp, standalone: Path, tmp_path: Path) -> None:
    path = standalone.rename(tmp_path / "red, green, blue.pt")
    answer = start_app(model=str(path)).post("/predict", content=colour_image("blue")).json()

    assert answer["model"] == "red-green-blue"


def test_images_of_different_sizes_share_a_batch(start_app: StartApp, standalone: Path) -> None:
    client = start_app(model=str(standalone), streams=1)
    sizes = [(40, 30), (300, 41), (29, 90), (1, 50)]
    files = [("files", colour_image("green", width=width, height=height)) for width, height in sizes]
    results = client.post("/predict/batch?top_k=1", files=files).json()["results"]

    assert [result["predictions"][0]["class_name"] for result in results] == ["green"] * 4


def test_served_probabilities_are_the_modules_own(start_app: StartApp, standalone: Path) -> None:
    from app.images.decode import decode

    image = colour_image("red", width=75, height=51)
    module = torch.jit.load(str(standalone))  # type: ignore[no-untyped-call]
    expected = module(as_planes(decode(image).to_array()).unsqueeze(0))[0].tolist()
    predictions = start_app(model=str(standalone)).post("/predict", content=image).json()["predictions"]

    assert {p["class_id"]: p["probability"] for p in predictions} == pytest.approx(dict(enumerate(expected)), abs=1e-6)


class WithoutSoftmax(CourseNotesPredictor):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(self.transforms(x))  # type: ignore[no-any-return]


class TwoClassesTooFew(CourseNotesPredictor):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.softmax(self.model(self.transforms(x))[:, :1], dim=1)


class Broken(CourseNotesPredictor):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.softmax(self.model(self.transforms(x)[:, :2]), dim=1)


class NotFinite(CourseNotesPredictor):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.softmax(self.model(self.transforms(x)) / 0, dim=1)


class Nameless(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (WithoutSoftmax, "softmax"),
        (TwoClassesTooFew, "shape (1, 1), not (1, 3)"),
        (Broken, "fails on a plain grey image"),
        (NotFinite, "not finite"),
    ],
)
def test_module_that_gives_no_probabilities_is_never_ready(
    start_app: StartApp, tmp_path: Path, module: type[CourseNotesPredictor], reason: str
) -> None:
    path = save(module(network(), NAMES, [0.5] * 3, [0.25] * 3), tmp_path / "model.pt")
    client = start_app(model=str(path))

    assert client.get("/health/live").status_code == 200
    assert reason in client.get("/health/ready").json()["detail"]


def test_missing_class_list_is_explained(start_app: StartApp, tmp_path: Path) -> None:
    client = start_app(model=str(save(Nameless(), tmp_path / "model.pt")))

    assert "class_names: List[str]" in client.get("/health/ready").json()["detail"]


class FixedSize(nn.Module):
    """Takes images of 224 x 224 only, as a network does that was traced or ends in a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.class_names = NAMES
        self.head = nn.Linear(3 * 224 * 224, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.softmax(self.head(torch.flatten(x.float(), 1)), dim=1)


class ReturnsTuple(CourseNotesPredictor):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        return functional.softmax(self.model(self.transforms(x)), dim=1), x


class ReturnsDict(CourseNotesPredictor):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        return {"probabilities": functional.softmax(self.model(self.transforms(x)), dim=1)}


class ReturnsList(CourseNotesPredictor):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:  # type: ignore[override]
        return [functional.softmax(self.model(self.transforms(x)), dim=1)]


def test_forward_that_takes_one_size_only_is_never_ready(start_app: StartApp, tmp_path: Path) -> None:
    client = start_app(model=str(save(FixedSize(), tmp_path / "model.pt")))
    ready = client.get("/health/ready")

    assert ready.status_code == 503
    assert "a plain grey image of 333 x 251, though not on one of 224 x 224" in ready.json()["detail"]
    assert "its forward must take images of any size" in ready.json()["detail"]


class OneAtATime(CourseNotesPredictor):
    """Has the two halves of a Predictor, but `classify` takes a batch of one image only."""

    def __init__(self) -> None:
        super().__init__(network(), NAMES, [0.5] * 3, [0.25] * 3)
        self.image_size = 28
        self.resize_size = 32

    @torch.jit.export
    def classify(self, x: torch.Tensor) -> torch.Tensor:
        return functional.softmax(self.model(x.float().view(1, 3, 28, 28) / 255), dim=1)

    @torch.jit.export
    def resize_and_crop(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_classify_that_takes_one_image_only_is_never_ready(start_app: StartApp, tmp_path: Path) -> None:
    reason = start_app(model=str(save(OneAtATime(), tmp_path / "model.pt"))).get("/health/ready").json()["detail"]

    assert "fails on a batch of 2 plain grey images of 28 x 28, though not on one alone" in reason


@pytest.mark.parametrize(
    ("module", "kind"), [(ReturnsTuple, "a tuple"), (ReturnsDict, "a dict"), (ReturnsList, "a list")]
)
def test_forward_that_returns_no_tensor_is_explained(
    start_app: StartApp, tmp_path: Path, module: type[CourseNotesPredictor], kind: str
) -> None:
    client = start_app(model=str(save(module(network(), NAMES, [0.5] * 3, [0.25] * 3), tmp_path / "model.pt")))

    reason = client.get("/health/ready").json()["detail"]
    assert f"forward must return one tensor of probabilities, (1, C); it returned {kind}." in reason


def test_class_names_may_be_a_tuple(start_app: StartApp, tmp_path: Path) -> None:
    predictor = CourseNotesPredictor(network(), NAMES, [0.5] * 3, [0.25] * 3)
    predictor.class_names = ("red", "green", "blue")  # type: ignore[assignment]
    client = start_app(model=str(save(predictor, tmp_path / "model.pt")))

    answer = client.post("/predict", content=colour_image("green")).json()
    assert answer["predictions"][0]["class_name"] == "green"


@pytest.mark.parametrize(
    ("attribute", "value", "found"),
    [
        ("class_names", {0: "red", 1: "green", 2: "blue"}, "its class_names is a dict, not a list"),
        ("class_names", [0, 1, 2], "its class_names holds int, not str"),
        ("classes", ["red", "green", "blue"], "it has `classes`, but no attribute class_names"),
        ("version", 1, "it has no attribute class_names"),
    ],
)
def test_what_stands_in_place_of_the_class_list_is_told(
    start_app: StartApp, tmp_path: Path, attribute: str, value: object, found: str
) -> None:
    module = Nameless()
    setattr(module, attribute, value)
    reason = start_app(model=str(save(module, tmp_path / "model.pt"))).get("/health/ready").json()["detail"]

    assert found in reason
    assert "class_names: List[str]" in reason


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 neither"])
def test_file_that_is_no_torchscript_is_explained(start_app: StartApp, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)

    assert "cannot be loaded as TorchScript" in start_app(model=str(path)).get("/health/ready").json()["detail"]


def in_old_form(what: object, path: Path) -> None:
    torch.save(what, path, _use_new_zipfile_serialization=False)


def plain_pickle(what: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(what))


@pytest.mark.parametrize("save_as", [torch.save, in_old_form])
@pytest.mark.parametrize("optimizer", [False, True])
def test_pickled_weights_are_named(
    start_app: StartApp, tmp_path: Path, save_as: Callable[[object, Path], None], optimizer: bool
) -> None:
    weights: dict[str, object] = dict(network().state_dict())
    save_as({"model": weights, "lr": 0.1, "epoch": 3} if optimizer else weights, tmp_path / "weights.pth")
    reason = start_app(model=str(tmp_path / "weights.pth")).get("/health/ready").json()["detail"]

    assert "cannot be loaded as TorchScript: it is a pickled state_dict or checkpoint" in reason
    assert "torch.jit.script(module)" in reason


@pytest.mark.parametrize("save_as", [torch.save, in_old_form, plain_pickle])
def test_pickled_module_is_named_and_never_unpickled(
    start_app: StartApp, tmp_path: Path, save_as: Callable[[object, Path], None]
) -> None:
    save_as(Traitor(tmp_path / "unpickled"), tmp_path / "model.pt")
    reason = start_app(model=str(tmp_path / "model.pt")).get("/health/ready").json()["detail"]

    assert "it is a pickled object of the class" in reason
    assert not (tmp_path / "unpickled").exists()


class Traitor:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "a pointer of Git LFS"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (b"<!DOCTYPE html><title>Sign in</title>", "a web page"),
        (b"\x02\0\0\0\0\0\0\0{}", "a file of safetensors"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.4.0", "an ONNX model"),
        (b"PK\x03\x04" + bytes(40), "a zip file that is cut short or damaged"),
        (b"", "it is empty"),
    ],
)
def test_file_of_another_kind_is_named(start_app: StartApp, tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "model.pt").write_bytes(content)

    assert what in start_app(model=str(tmp_path / "model.pt")).get("/health/ready").json()["detail"]


def _nameless(folder: Path) -> Path:
    predictor = CourseNotesPredictor(network(), NAMES, [0.5] * 3, [0.25] * 3)
    del predictor.class_names
    return save(predictor, folder / "model.pt")


@pytest.mark.parametrize(
    ("file_name", "content"),
    [
        ("labels.txt", "red\ngreen\nblue\n"),
        ("classes.txt", "\ufeffred\r\ngreen\r\nblue"),
        ("index_to_name.json", '{"0": "red", "2": "blue", "1": "green"}'),
        ("index_to_name.json", '{"0": ["n01", "red"], "1": ["n02", "green"], "2": ["n03", "blue"]}'),
        ("index_to_name.json", '["red", "green", "blue"]'),
    ],
)
def test_names_of_classes_may_lie_beside_the_file(
    start_app: StartApp, tmp_path: Path, file_name: str, content: str
) -> None:
    (tmp_path / file_name).write_text(content, encoding="utf-8")
    answer = start_app(model=str(_nameless(tmp_path))).post("/predict", content=colour_image("green")).json()

    assert {each["class_id"]: each["class_name"] for each in answer["predictions"]} == dict(enumerate(NAMES))


@pytest.mark.parametrize(
    ("file_name", "content", "reason"),
    [
        ("labels.txt", b"red\n\nblue", "no empty ones"),
        ("labels.txt", b"", "a name for each class"),
        ("labels.txt", b"r\xe9d\ngreen\nblue", "is not UTF-8"),
        ("labels.txt", b"red\ngreen", "shape (1, 3), not (1, 2)"),
        ("index_to_name.json", b'{"0": "red", "2": "blue"}', "without a gap"),
        ("index_to_name.json", b'{"0": 1}', "a name for each class"),
        ("index_to_name.json", b"{", "is not JSON"),
        ("index_to_name.json", b'"red"', "must hold a list, or an object"),
    ],
)
def test_names_that_are_of_no_use_are_told(
    start_app: StartApp, tmp_path: Path, file_name: str, content: bytes, reason: str
) -> None:
    (tmp_path / file_name).write_bytes(content)

    assert reason in start_app(model=str(_nameless(tmp_path))).get("/health/ready").json()["detail"]


def test_names_that_are_added_later_are_seen(start_app: StartApp, tmp_path: Path) -> None:
    client = start_app(model=str(_nameless(tmp_path)), watch_store_s=0.01)
    assert "labels.txt" in client.get("/health/ready").json()["detail"]
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    deadline = time.monotonic() + 20
    while client.get("/health/ready").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_predictor_with_a_filter_of_a_later_release_resizes_by_itself(start_app: StartApp, tmp_path: Path) -> None:
    """Bilinear in its place would be another answer, and a file without a manifest has no golden images to show it."""
    predictor = colour_predictor(network())
    predictor.interpolation = "lanczos"
    client = start_app(model=str(save(predictor, tmp_path / "later.pt")))
    assert client.app.state.service.registry.get().artifact.geometry is None  # type: ignore[attr-defined]

    predictions = client.post("/predict", content=colour_image("red")).json()["predictions"]
    assert predictions[0]["class_name"] == "red"
