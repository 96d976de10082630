"""The Predictor agrees with Pillow, torchvision and plain arithmetic."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.v2 import functional as v2

from tests.support.images import Pixels
from tests.support.predictors import CLASS_NAMES, RGB, Convolutional, predictor
from training.export.export import script
from training.export.predictor import Predictor, _axis_weights

SIZES = [
    pytest.param(height, width, id=f"{height}x{width}")
    for height, width in [
        (16, 16),
        (17, 23),
        (300, 451),
        (451, 300),
        (256, 256),
        (257, 300),
        (255, 511),
        (224, 224),
        (480, 640),
        (601, 403),
        (1000, 50),
        (60, 1200),
        (1500, 2001),
    ]
]


class Identity(nn.Module):
    """Takes the normalised pixels for logits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `(N, channels * S * S)`."""
        return x.flatten(1)


def tensor_of(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).unsqueeze(0)  # (1, 3, H, W)


def resized(cat: Pixels, height: int, width: int) -> Pixels:
    """The cat at any size, with noise so that every pixel counts."""
    image = np.asarray(Image.fromarray(cat).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noise = np.random.default_rng(height * 10_007 + width).integers(-40, 41, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def by_pillow(pixels: Pixels, resize_size: int = 256, image_size: int = 224) -> Pixels:
    """The definition: Pillow resizes what torchvision's central crop of the resized image covers.

    Horizontally first, each pass alone: since 13.0, Pillow's `resize` would begin with the rows of a tall image, and
    round in another place (https://github.com/python-pillow/Pillow/pull/9549).
    """
    height, width, _ = pixels.shape
    shorter = min(height, width)
    full_width, full_height = resize_size * width // shorter, resize_size * height // shorter
    left, top = round((full_width - image_size) / 2), round((full_height - image_size) / 2)
    right, bottom = left + image_size, top + image_size
    columns = (left * width / full_width, 0, min(right * width / full_width, width), height)
    rows = (0, top * height / full_height, image_size, min(bottom * height / full_height, height))
    narrowed = Image.fromarray(pixels).resize((image_size, height), Image.Resampling.BILINEAR, box=columns)
    return np.asarray(narrowed.resize((image_size, image_size), Image.Resampling.BILINEAR, box=rows))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("resize_size", "image_size"), [(256, 224), (224, 224), (33, 28), (64, 1)])
def test_uint8_is_pillows_resize_to_the_bit(
    cat: Pixels, height: int, width: int, resize_size: int, image_size: int
) -> None:
    pixels = resized(cat, height, width)
    seen = predictor(image_size=image_size, resize_size=resize_size).resize_and_crop(tensor_of(pixels))
    assert seen.dtype == torch.uint8
    assert np.array_equal(seen[0].permute(1, 2, 0).numpy(), by_pillow(pixels, resize_size, image_size))


@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    resize_size=st.integers(1, 80),
    margin=st.integers(0, 40),
)
@example(height=1, width=1, resize_size=1, margin=0)
@example(height=1, width=700, resize_size=80, margin=79)
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_any_size_is_pillows_resize_to_the_bit(height: int, width: int, resize_size: int, margin: int) -> None:
    image_size = max(1, resize_size - margin)
    pixels = np.random.default_rng(height * 701 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    seen = predictor(image_size=image_size, resize_size=resize_size).resize_and_crop(tensor_of(pixels))
    assert np.array_equal(seen[0].permute(1, 2, 0).numpy(), by_pillow(pixels, resize_size, image_size))


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(300, 451), (451, 300), (40, 700), (1, 9), (2000, 30)])
def test_every_geometry_is_pillows(cat: Pixels, height: int, width: int, interpolation: str, fit: str) -> None:
    """Horizontally first, as torchvision and Pillow before 12 do it; `box` is what the crop sees."""
    pixels = np.asarray(resized(cat, height, width))
    module = predictor(image_size=48, resize_size=56, interpolation=interpolation, fit=fit)
    seen = module.resize_and_crop(tensor_of(pixels))[0].permute(1, 2, 0).numpy()
    scale = Image.Resampling[interpolation.upper()]
    if fit == "squash":
        expected = Image.fromarray(pixels).resize((48, height), scale).resize((48, 48), scale)
    else:
        shorter = min(height, width)
        whole = (56 * width // shorter, 56 * height // shorter)
        resized_whole = Image.fromarray(pixels).resize((whole[0], height), scale).resize(whole, scale)
        left, top = (round((side - 48) / 2) for side in whole)
        expected = resized_whole.crop((left, top, left + 48, top + 48))

    # In the middle of a whole image, Pillow may round the other way where a sample is a tie, once along each axis.
    difference = np.abs(seen.astype(int) - np.asarray(expected))
    assert difference.max() <= (0 if fit == "squash" else 2)
    assert (difference > 0).mean() < 0.03


def _by_torchvision(x: torch.Tensor, *, antialias: bool = True) -> torch.Tensor:
    resized_whole = v2.resize(x, [256], antialias=antialias)
    cropped: torch.Tensor = v2.center_crop(resized_whole, [224, 224])
    return cropped


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_it_agrees_with_torchvisions_resize_and_crop(cat: Pixels, height: int, width: int) -> None:
    x = tensor_of(resized(cat, height, width))
    module = predictor()
    levels = module.resize_and_crop(x).int() - _by_torchvision(x).int()
    assert int(levels.abs().max()) <= 1
    as_float = x.float() / 255
    seen = module.resize_and_crop(as_float)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, _by_torchvision(as_float), rtol=0, atol=1e-5)


def test_without_antialiasing_the_same_comparison_fails(photo: Pixels) -> None:
    x = tensor_of(photo)
    seen = predictor().resize_and_crop(x).int()
    assert int((seen - _by_torchvision(x, antialias=False).int()).abs().max()) > 10
    assert int((seen - _by_torchvision(x).int()).abs().max()) <= 1


@pytest.mark.parametrize(("height", "width"), [(1, 60_000), (60_000, 1), (100, 2000), (2000, 100)])
def test_the_part_that_is_seen_is_bounded_for_any_aspect_ratio(height: int, width: int) -> None:
    shorter = min(height, width)
    for length in (height, width):
        first, last, weights = _axis_weights(length, 256 * length // shorter, 224, False)
        assert weights.shape == (224, last - first)
        # The crop is 224 / 256 of the shorter side long, and the filter reaches one step beyond either end.
        assert last - first <= shorter + 4


@pytest.mark.parametrize(("height", "width"), [(1, 60_000), (60_000, 1), (40, 800), (800, 40)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_long_thin_images_are_answered(cat: Pixels, height: int, width: int, dtype: torch.dtype) -> None:
    pixels = np.resize(cat, (height, width, 3)).astype(np.uint8)
    x = tensor_of(pixels) if dtype == torch.uint8 else tensor_of(pixels).float() / 255
    probabilities = predictor()(x)
    assert tuple(probabilities.shape) == (1, 3)
    middle = predictor().resize_and_crop(tensor_of(pixels))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(middle, by_pillow(pixels))


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches for the largest floating-point tensor that is made, in bytes."""

    size_bytes = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.is_floating_point():
            self.size_bytes = max(self.size_bytes, made.numel() * made.element_size())
        return made


def test_the_working_copy_of_a_large_image_is_bounded() -> None:
    x = torch.zeros(1, 3, 5000, 10_000, dtype=torch.uint8)  # in float64: 1.2 GB
    with LargestTensor() as largest:  # type: ignore[no-untyped-call]
        predictor().resize_and_crop(x)
    assert 0 < largest.size_bytes <= 120 * 1024 * 1024


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_probabilities_are_the_softmax_of_logits_over_the_temperature(cat: Pixels, temperature: float) -> None:
    module = predictor(temperature=temperature)
    x = module.resize_and_crop(tensor_of(cat))
    normalised = (x.numpy() / 255 - np.reshape(RGB["mean"], (1, 3, 1, 1))) / np.reshape(RGB["std"], (1, 3, 1, 1))
    with torch.no_grad():
        logits = module.model(torch.from_numpy(normalised).float()).double().numpy()[0] / temperature
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(module(tensor_of(cat))[0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("grey", [False, True], ids=["rgb", "grey"])
def test_rows_sum_to_one_and_are_float32(photo: Pixels, grey: bool) -> None:
    probabilities = predictor(grey=grey)(tensor_of(photo))
    assert probabilities.dtype == torch.float32
    assert not probabilities.requires_grad
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("grey", [False, True], ids=["rgb", "grey"])
def test_forward_is_classify_of_resize_and_crop(cat: Pixels, grey: bool) -> None:
    module = predictor(grey=grey)
    assert torch.equal(module(tensor_of(cat)), module.classify(module.resize_and_crop(tensor_of(cat))))


@pytest.mark.parametrize("grey", [False, True], ids=["rgb", "grey"])
def test_float_pixels_give_nearly_the_same_as_uint8(cat: Pixels, grey: bool) -> None:
    module, x = predictor(grey=grey), tensor_of(cat)
    torch.testing.assert_close(module(x), module(x.float() / 255), rtol=0, atol=5e-3)


def test_a_grey_model_sees_pillows_luma(photo: Pixels) -> None:
    module = Predictor(Identity(), CLASS_NAMES, image_size=28, mean=[0.0], std=[1.0])
    crop = by_pillow(photo, 28, 28)
    log_probabilities = module.classify(tensor_of(crop)).log()[0].numpy()
    luma = np.asarray(Image.fromarray(crop).convert("L"), dtype=float).flatten()
    # A softmax tells its logits up to a constant: here, the mean.
    levels = (log_probabilities - log_probabilities.mean()) * 255
    assert np.abs(levels - (luma - luma.mean())).max() <= 1


@pytest.mark.parametrize("grey", [False, True], ids=["rgb", "grey"])
def test_a_batch_is_its_images_one_by_one(photos: dict[str, Pixels], grey: bool) -> None:
    module = predictor(grey=grey)
    images = torch.cat([tensor_of(resized(pixels, 120, 150)) for pixels in photos.values()])
    singles = [module(image.unsqueeze(0)) for image in images]
    torch.testing.assert_close(module(images), torch.cat(singles), rtol=0, atol=1e-6)
    crops = torch.cat([module.resize_and_crop(image.unsqueeze(0)) for image in images])
    assert torch.equal(module.resize_and_crop(images), crops)


def test_statistics_are_buffers_and_the_model_is_in_eval_mode() -> None:
    module = predictor()
    assert {name for name, _ in module.named_buffers()} == {"mean", "std", "temperature", "luma"}
    assert all(name.startswith("model.") for name, _ in module.named_parameters())
    assert not module.model.training


@pytest.mark.parametrize("grey", [False, True], ids=["rgb", "grey"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_the_scripted_predictor_is_the_eager_one(cat: Pixels, grey: bool, dtype: torch.dtype) -> None:
    module = predictor(grey=grey)
    file = io.BytesIO()
    torch.jit.save(script(module), file)
    file.seek(0)
    loaded = torch.jit.load(file)  # type: ignore[no-untyped-call]
    x = tensor_of(cat) if dtype == torch.uint8 else tensor_of(cat).float() / 255
    for _ in range(3):  # the profiling executor rewrites the graph after the first calls
        assert torch.equal(loaded.resize_and_crop(x), module.resize_and_crop(x))
        torch.testing.assert_close(loaded(x), module(x), rtol=0, atol=1e-6)
    assert loaded.class_names == CLASS_NAMES
    assert (loaded.image_size, loaded.resize_size) == (224, 256)


_LOAD_WITH_TORCH_ALONE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"app", "training", "tests", "torchvision", "timm", "PIL", "numpy"}:
            raise ModuleNotFoundError(f"{name} is blocked here")

sys.meta_path.insert(0, Blocked())
import torch

predictor = torch.jit.load(sys.argv[1])
x = (torch.arange(3 * 40 * 60) % 251).to(torch.uint8).view(1, 3, 40, 60)
print(predictor.class_names[-1] == "caf\\u00e9 au lait", predictor.image_size)
print(*predictor(x)[0].tolist())
print(*predictor.classify(predictor.resize_and_crop(x))[0].tolist())
"""


@pytest.mark.slow
def test_the_file_is_enough_in_a_process_that_has_only_torch(tmp_path: Path) -> None:
    module = predictor(image_size=28, resize_size=32)
    torch.jit.save(script(module), str(tmp_path / "model.pt"))
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _LOAD_WITH_TORCH_ALONE, str(tmp_path / "model.pt")],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=tmp_path,
    )
    attributes, *rows = finished.stdout.splitlines()
    assert attributes == "True 28"
    x = (torch.arange(3 * 40 * 60) % 251).to(torch.uint8).view(1, 3, 40, 60)
    for row in rows:
        torch.testing.assert_close(
            torch.tensor([float(value) for value in row.split()]), module(x)[0], rtol=0, atol=1e-6
        )
    assert len(rows) == 2


NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"image_size": 0}, "image_size"),
        ({"image_size": 225, "resize_size": 224}, "image_size"),
        ({"mean": [0.5, 0.5]}, "mean and std"),
        ({"mean": [0.5] * 2, "std": [0.5] * 2}, "1 or 3"),
        ({"mean": [], "std": []}, "1 or 3"),
        ({"mean": [0.5, 0.5, NAN]}, "mean"),
        ({"std": [0.5, 0.0, 0.5]}, "std"),
        ({"std": [0.5, -1.0, 0.5]}, "std"),
        ({"std": [0.5, NAN, 0.5]}, "std"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": NAN}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"class_names": []}, "class_names"),
    ],
    ids=str,
)
def test_arguments_out_of_their_range_are_named(changes: dict[str, object], named: str) -> None:
    arguments: dict[str, object] = {"class_names": CLASS_NAMES, "image_size": 28, **RGB} | changes
    with pytest.raises(ValueError, match=named):
        Predictor(Convolutional(), **arguments)  # type: ignore[arg-type]
