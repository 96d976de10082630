"""A TorchServe archive becomes a published model with the answers that its handler gave, and nothing in it is run."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models, transforms

from app.inference.loading import load_artifact
from app.store.model_store import ModelStore
from tests.support.images import Pixels, encode
from training.errors import SourceError
from training.importing.import_archive import import_archive
from training.importing.import_model import Source

pytestmark = pytest.mark.slow  # each export takes seconds
NAMES = {str(number): [f"n{number:08}", f"thing {number}"] for number in range(6)}
RESNET = """
from torchvision.models.resnet import ResNet, BasicBlock

class ImageClassifier(ResNet):
    def __init__(self):
        super(ImageClassifier, self).__init__(BasicBlock, [2, 2, 2, 2], num_classes=6)
"""


class _Small(nn.Module):
    """`(N, 3, S, S)` -> `(N, 6)` logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 7, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.layers(x)) * 5
        return logits


def torchserves_answer(network: nn.Module, image: bytes) -> dict[str, float]:
    """Returns what TorchServe's handler `image_classifier` answers, step by step as its source has it."""
    processing = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )
    with torch.no_grad():
        rows = torch.softmax(network(processing(Image.open(io.BytesIO(image))).unsqueeze(0)), dim=1)
    probabilities, classes = rows[0].topk(5)
    return {NAMES[str(int(each))][-1]: float(p) for p, each in zip(probabilities, classes, strict=True)}


def archive(path: Path, files: dict[str, bytes], **model: Any) -> Path:
    """Writes an archive as torch-model-archiver does."""
    described = {"modelName": "My_Model", "handler": "image_classifier", "modelVersion": "1.0", **model}
    manifest = {"createdOn": "1", "runtime": "python", "model": described, "archiverVersion": "0.12.0"}
    with zipfile.ZipFile(path, "w") as writing:
        writing.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        for name, content in files.items():
            writing.writestr(name, content)
    return path


def saved(network: nn.Module | dict[str, Any], *, scripted: bool = False) -> bytes:
    """Returns a network as TorchScript, or weights as a file."""
    buffer = io.BytesIO()
    if scripted:
        torch.jit.save(torch.jit.script(network), buffer)
    else:
        torch.save(network, buffer)
    return buffer.getvalue()


def published_answer(folder: Path, image: bytes) -> dict[str, float]:
    """Returns the five best classes of a published version."""
    module = torch.jit.load(str(folder / "model.pt"))  # type: ignore[no-untyped-call]
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(image)))).permute(2, 0, 1)[None]
    probabilities, classes = module(pixels)[0].topk(5)
    return {module.class_names[int(each)]: float(p) for p, each in zip(probabilities, classes, strict=True)}


def test_torchscript_answers_as_its_handler_did(tmp_path: Path, cat: Pixels) -> None:
    torch.manual_seed(4)
    network = _Small().eval()
    files = {"model.pt": saved(network, scripted=True), "index_to_name.json": json.dumps(NAMES).encode()}
    mar = archive(tmp_path / "a.mar", files, serializedFile="model.pt")
    store = tmp_path / "store"

    command = [sys.executable, "-m", "app", "import-mar", str(mar), "--store", str(store)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    folder = store / "my_model" / "1"
    assert f"Published {folder}" in told
    image = encode(cat, "PNG")
    expected = torchserves_answer(network, image)
    found = published_answer(folder, image)
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, abs=1e-5)
    artifact = load_artifact("my_model", ModelStore(store))
    assert artifact.geometry is not None
    assert (artifact.geometry.resize_size, artifact.geometry.image_size) == (256, 224)


def test_weights_find_their_network_of_torchvision(tmp_path: Path, cat: Pixels) -> None:
    torch.manual_seed(5)
    network = models.resnet18(weights=None, num_classes=6).eval()
    files = {
        "weights.pth": saved(network.state_dict()),
        "model.py": RESNET.encode(),
        "index_to_name.json": json.dumps(NAMES).encode(),
    }
    mar = archive(tmp_path / "a.mar", files, serializedFile="weights.pth", modelFile="model.py")

    folder = import_archive(Source(mar), store_root=tmp_path / "store", name="resnet")

    image = encode(cat, "PNG")
    assert (folder / "model.onnx").exists()
    assert published_answer(folder, image) == pytest.approx(torchserves_answer(network, image), abs=1e-5)
    artifact = load_artifact("resnet", ModelStore(tmp_path / "store"))
    assert artifact.manifest is not None
    assert artifact.manifest.architecture.name == "torchvision:resnet18"


@pytest.mark.parametrize("kind", ["folder", "tar.gz", "tar.gz with a folder"])
def test_archive_may_be_a_folder_or_a_tar(tmp_path: Path, kind: str) -> None:
    mar = archive(tmp_path / "a.mar", {"model.pt": saved(_Small().eval(), scripted=True)}, serializedFile="model.pt")
    path = tmp_path / "model.tar.gz"
    with zipfile.ZipFile(mar) as reading:
        reading.extractall(tmp_path / "folder")
    if kind == "folder":
        path = tmp_path / "folder"
    else:
        with tarfile.open(path, "w:gz") as writing:
            writing.add(tmp_path / "folder", arcname="my_model" if "with" in kind else ".")

    folder = import_archive(Source(path), store_root=tmp_path / "store", name=None)

    module = torch.jit.load(str(folder / "model.pt"))  # type: ignore[no-untyped-call]
    assert module.class_names == ["0", "1", "2", "3", "4", "5"]  # as TorchServe answers without names


TRAP = b"open('ran', 'w').close()\n"
REFUSED: dict[str, tuple[dict[str, bytes], dict[str, Any], str]] = {
    "own handler": ({"h.py": TRAP}, {"handler": "h.py", "serializedFile": "m.pt"}, "its own handler 'h.py'"),
    "other handler": ({}, {"handler": "object_detector", "serializedFile": "m.pt"}, "the handler 'object_detector'"),
    "no handler": ({}, {"handler": None, "serializedFile": "m.pt"}, "the handler 'None'"),
    "ONNX": ({"m.onnx": b"x"}, {"serializedFile": "m.onnx"}, "the model 'm.onnx'"),
    "no file": ({}, {"serializedFile": "m.pt"}, "no file 'm.pt'"),
    "no TorchScript": ({"m.pt": b"x"}, {"serializedFile": "m.pt"}, "is no TorchScript"),
    "a way out": ({"m.pt": b"x"}, {"serializedFile": "../../etc/secret.pt"}, "no file '../../etc/secret.pt'"),
    "own network": ({"m.pt": saved({}), "model.py": TRAP}, {"serializedFile": "m.pt", "modelFile": "model.py"},
                    "not torchvision's"),
    "own forward": ({"m.pt": saved({"a": torch.zeros(1)}), "model.py": f"{RESNET}    def forward(self): ...".encode()},
                    {"serializedFile": "m.pt", "modelFile": "model.py"}, "a method 'forward' of its own"),
    "no such weights": ({"m.pt": saved({"a": torch.zeros(1)}), "model.py": RESNET.encode()},
                        {"serializedFile": "m.pt", "modelFile": "model.py"}, "fit none of torchvision"),
    "no Python": ({"m.pt": saved({"a": torch.zeros(1)}), "model.py": b"def"},
                  {"serializedFile": "m.pt", "modelFile": "model.py"}, "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_published_is_told_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    files, model, words = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    mar = archive(tmp_path / "a.mar", files, **model)

    with pytest.raises(SourceError) as refusal:
        import_archive(Source(mar), store_root=tmp_path / "store", name="m")

    assert words in str(refusal.value)
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"text", None], ids=["empty", "a cut zip", "a text", "nothing"]
)
def test_what_is_no_archive_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.mar"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=r"no archive of TorchServe|no file or folder"):
        import_archive(Source(path), store_root=tmp_path / "store", name="m")

    with zipfile.ZipFile(path, "w") as writing:
        writing.writestr("MAR-INF/MANIFEST.json", "[" * 100_000)
    with pytest.raises(SourceError, match="not JSON"):
        import_archive(Source(path), store_root=tmp_path / "store", name="m")


def test_names_that_do_not_fit_the_network_are_told(tmp_path: Path) -> None:
    few = json.dumps({"0": "a", "1": "b"}).encode()
    files = {"model.pt": saved(_Small().eval(), scripted=True), "index_to_name.json": few}
    mar = archive(tmp_path / "a.mar", files, serializedFile="model.pt")

    with pytest.raises(Exception, match="6 probabilities, but 2 class names"):
        import_archive(Source(mar), store_root=tmp_path / "store", name="m")
