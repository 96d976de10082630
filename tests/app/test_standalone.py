"""Plain TorchScript, as course notes and older projects export it, is served per image and marked `unverified`."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import transforms

from tests.support.colours import StartApp, colour_image


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
    expected = module(decode(image).to_tensor().unsqueeze(0))[0].tolist()
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


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 neither"])
def test_file_that_is_no_torchscript_is_explained(start_app: StartApp, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)

    assert "cannot be loaded as TorchScript" in start_app(model=str(path)).get("/health/ready").json()["detail"]


def test_pickled_state_dict_is_refused_not_executed(start_app: StartApp, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(copy.deepcopy(network()).state_dict(), path)

    assert "cannot be loaded as TorchScript" in start_app(model=str(path)).get("/health/ready").json()["detail"]
