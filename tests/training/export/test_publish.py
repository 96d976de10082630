"""A run is published with golden images of its own, or is kept if the store cannot be written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.images.decode import decode
from training.config.settings import TrainConfig
from training.data.prepared import prepare_data
from training.errors import RunError
from training.export.publish import golden_images, publish_run
from training.runs.run_folder import RunFolder

pytestmark = pytest.mark.slow


def _photos(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    for class_name in ("large", "small"):
        (folder / class_name).mkdir(parents=True)
        for number in range(4):
            side = 700 if class_name == "large" else 60
            noise = generator.integers(0, 256, (side, 2 * side, 3), dtype=np.uint8)  # noise does not compress
            Image.fromarray(noise).save(folder / class_name / f"{number}.png")
    return folder


def test_golden_images_are_the_files_themselves_unless_they_are_large(tmp_path: Path) -> None:
    config = TrainConfig(data=str(_photos(tmp_path / "photos")), image_size=64)
    data = prepare_data(config)
    large, small = golden_images(data)
    assert small == data.source.encoded(next(index for index in data.split.test if data.source.labels[index] == 1))
    assert len(large) < 256 * 1024
    assert min(decode(large).pixels.size) == config.shorter_side


def test_store_that_cannot_be_written_is_named_and_the_run_is_kept(digits_run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    data = prepare_data(digits_run.config(), digits_run.path)
    with pytest.raises(RunError, match=r"cannot be published in .*file.*training export"):
        publish_run(digits_run, data, store_root=tmp_path / "file", onnx=False)
    assert digits_run.best_checkpoint.is_file()
