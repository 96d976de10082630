"""The default model has the weights of its package in the right places, and recognises real photos."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import training.__main__ as command_line
from app.images.decode import decode
from app.store.manifest import MODEL_FILE, Manifest
from app.store.model_store import ModelStore, verify_files
from tests.support.images import Pixels, encode
from training.data.pixel_store import as_planes
from training.export.import_pretrained import GOLDEN_FOLDER
from training.networks.efficientnet_lite0 import WeightsMismatchError, efficientnet_lite0, load_by_name, to_timm_name

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def default_model(imagenet_store: Path) -> Any:
    """The published artifact, loaded as any user would."""
    return torch.jit.load(str(imagenet_store / "imagenet" / "1" / MODEL_FILE))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("name", "class_names"),
    [
        ("cat", {"tabby", "tiger cat", "Egyptian cat"}),
        ("coffee", {"espresso"}),
        ("rocket", {"missile", "projectile"}),
    ],
    ids=["cat", "coffee", "rocket"],
)
def test_the_default_model_knows_what_it_sees(
    default_model: Any, photos: dict[str, Pixels], name: str, class_names: set[str]
) -> None:
    x = as_planes(decode(encode(photos[name], "JPEG", quality=90)).to_array()).unsqueeze(0)
    probabilities = default_model(x)[0]
    assert default_model.class_names[int(probabilities.argmax())] in class_names
    assert float(probabilities.max()) > 0.2


def test_the_default_model_is_published_whole(imagenet_store: Path) -> None:
    store = ModelStore(imagenet_store)
    assert store.names() == ["imagenet"]
    folder = store.resolve("imagenet")
    manifest = Manifest.read(folder)
    verify_files(folder, manifest)
    assert (len(manifest.class_names), len(set(manifest.class_names))) == (1000, 1000)
    assert (manifest.class_names[0], manifest.class_names[282], manifest.class_names[999]) == (
        "tench",
        "tiger cat",
        "toilet tissue",
    )
    assert manifest.architecture.name == "efficientnet-lite0"
    assert manifest.architecture.parameter_count == 4_652_008  # timm's documentation of tf_efficientnet_lite0
    assert (manifest.preprocessing.resize_size, manifest.preprocessing.image_size) == (256, 224)
    assert manifest.fidelity.golden_count == len(list(GOLDEN_FOLDER.glob("*.jpg"))) == 3
    assert manifest.licence == "Apache-2.0"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn0.running_mean", "bn1.running_mean"),
        ("_blocks.0._depthwise_conv.weight", "blocks.0.0.conv_dw.weight"),
        ("_blocks.0._bn2.bias", "blocks.0.0.bn2.bias"),
        ("_blocks.1._expand_conv.weight", "blocks.1.0.conv_pw.weight"),
        ("_blocks.2._bn0.weight", "blocks.1.1.bn1.weight"),
        ("_blocks.15._project_conv.weight", "blocks.6.0.conv_pwl.weight"),
        ("_conv_head.weight", "conv_head.weight"),
        ("_bn1.num_batches_tracked", "bn2.num_batches_tracked"),
        ("_fc.bias", "classifier.bias"),
    ],
)
def test_names_are_translated(key: str, expected: str) -> None:
    assert to_timm_name(key) == expected


@pytest.mark.parametrize(
    "key",
    [
        "_blocks.16._bn1.weight",
        "_blocks.0._expand_conv.weight",
        "_blocks.1._se_reduce.weight",
        "conv_stem.weight",
        "_fc",
    ],
)
def test_an_unknown_name_is_refused(key: str) -> None:
    with pytest.raises(WeightsMismatchError):
        to_timm_name(key)


class TwoLayers(nn.Module):
    """Two layers of the same shape, and one of another."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = nn.Linear(2, 2)
        self.head = nn.Linear(2, 1)


def _weights() -> dict[str, torch.Tensor]:
    return {
        name: torch.full_like(tensor, index) for index, (name, tensor) in enumerate(TwoLayers().state_dict().items())
    }


def test_weights_go_where_their_names_say_whatever_their_order() -> None:
    model = TwoLayers()
    load_by_name(model, dict(reversed(_weights().items())))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, _weights()[name]), name


@pytest.mark.parametrize("change", ["renamed", "missing", "left over", "wrong shape"])
def test_weights_that_do_not_fit_are_refused_and_the_model_is_unchanged(change: str) -> None:
    model, weights = TwoLayers(), _weights()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moved = weights.pop("second.weight")
    named = {
        "renamed": {"third.weight": moved},
        "missing": {},
        "left over": {"second.weight": moved, "third.weight": moved},
        "wrong shape": {"second.weight": moved[:1]},
    }[change]
    with pytest.raises(WeightsMismatchError, match="third" if change in {"renamed", "left over"} else "second"):
        load_by_name(model, weights | named)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_missing_key_of_the_real_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real_load = torch.load

    def without_one(*arguments: Any, **options: Any) -> Any:
        assert options["weights_only"] is True
        weights = real_load(*arguments, **options)
        del weights["_blocks.7._bn1.running_var"]
        return weights

    monkeypatch.setattr(torch, "load", without_one)
    with pytest.raises(WeightsMismatchError, match=r"blocks\.3\.2\.bn2\.running_var|blocks\.4\.\d\.bn2\.running_var"):
        efficientnet_lite0()


def test_weights_swapped_among_equal_shapes_cannot_pass_for_the_real_ones(photos: dict[str, Pixels]) -> None:
    """Why names are checked: shapes alone would let these through, and the answers would be wrong."""
    model = efficientnet_lite0()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.from_numpy(photos["coffee"].copy()).permute(2, 0, 1).unsqueeze(0)
    crop = nn.functional.interpolate(x.float() / 127.5 - 1, (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        right = model(crop).argmax()
        first, second = "blocks.4.1.bn1.running_mean", "blocks.4.1.bn1.running_var"
        weights[first], weights[second] = weights[second], weights[first]
        load_by_name(model, weights)
        assert model(crop).argmax() != right


def _training(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "training", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=REPOSITORY,
    )


def test_the_command_says_where_it_published(imagenet_store: Path) -> None:
    printed = (imagenet_store.parent / "printed").read_text()
    assert printed.splitlines()[-1] == f"Published {imagenet_store / 'imagenet' / '1'}"


@pytest.mark.slow
def test_the_command_publishes_the_next_version_under_the_name_that_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a network that is exported in a moment in place of the real one."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000))
    monkeypatch.setattr("training.networks.efficientnet_lite0.efficientnet_lite0", lambda: network)
    for version in ("1", "2"):
        command_line.main(["import-pretrained", "efficientnet-lite0", "--store", str(tmp_path), "--name", "again"])
        published = tmp_path / "again" / version
        assert capsys.readouterr().out.strip() == f"Published {published}"
        manifest = Manifest.read(published)
        verify_files(published, manifest)
        assert manifest.name == "again"


@pytest.mark.slow
def test_the_command_refuses_an_architecture_it_does_not_have(tmp_path: Path) -> None:
    finished = _training("import-pretrained", "resnet50", "--store", str(tmp_path))
    assert finished.returncode != 0
    assert "resnet50" in finished.stderr
    assert "efficientnet-lite0" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert list(tmp_path.iterdir()) == []
