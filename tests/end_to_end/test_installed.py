"""What two wheels install is enough: outside any checkout, the command answers a photo. See `make test-slim`."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.support.images import Pixels, encode
from tests.support.live import SERVICE_PYTHON, live_server

pytestmark = [pytest.mark.slow, pytest.mark.skipif(SERVICE_PYTHON is None, reason="part of `make test-slim`")]


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `image-predictor` as installed, in a folder."""
    program = Path(SERVICE_PYTHON or "").with_name("image-predictor")
    environment = {"XDG_DATA_HOME": str(folder / "data"), "HOME": str(folder)}
    return subprocess.run(
        [program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_there_is_no_torch_and_training_says_what_it_needs(tmp_path: Path) -> None:
    done = command(tmp_path, "train", "--data", "photos", "--name", "flowers")

    assert done.returncode == 2
    assert done.stderr.endswith("which is not installed: pip install 'image-predictor[training]'.\n")
    assert subprocess.run([SERVICE_PYTHON or "", "-c", "import torch"], capture_output=True, check=False).returncode


def test_photo_is_answered_by_the_model_of_the_other_package(tmp_path: Path, cat: Pixels) -> None:
    with live_server(tmp_path / "log", model_store=tmp_path / "none") as server:
        server.wait_until_ready()
        answer = httpx.post(f"{server.url}/predict", content=encode(cat, "JPEG", quality=90)).json()

    assert answer["predictions"][0]["class_name"] in {"Egyptian cat", "tiger cat", "tabby"}


def test_files_are_classified_in_an_empty_folder(tmp_path: Path, cat: Pixels) -> None:
    photo = io.BytesIO()
    Image.fromarray(cat).save(photo, "PNG")
    (tmp_path / "cat.png").write_bytes(photo.getvalue())
    done = command(tmp_path, "predict", "--json-lines", "cat.png")

    assert done.returncode == 0, done.stderr
    assert "Egyptian cat" in done.stdout


def test_plain_torchscript_says_that_it_needs_torch(tmp_path: Path, imagenet_store: Path) -> None:
    published = imagenet_store / "imagenet" / "1" / "model.pt"
    alone = shutil.copy(published, tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    done = command(tmp_path, "predict", "--model", str(alone), "x.png")

    assert "pip install 'image-predictor[torch]'" in done.stdout + done.stderr
    beside_its_twin = command(tmp_path, "predict", "--model", str(published), "x.png")
    assert beside_its_twin.returncode == 0, beside_its_twin.stderr
