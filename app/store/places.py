"""Where models lie: the store of this folder, or else of this user; and the stores that installed packages bring."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from platformdirs import user_data_path

MODEL_PACKAGES: Final = "image_predictor.model_stores"
"""The group of entry points of packages that bring models. Each names the path of a folder like a model store."""
DEFAULT_MODEL: Final = "imagenet"
DEFAULT_MODEL_PACKAGE: Final = "image-predictor-imagenet"


def default_store() -> Path:
    """Returns the folder of the model store if none is named: `model_store` here, else in the user's data folder."""
    here = Path("model_store")
    return here if here.is_dir() else user_data_path("image-predictor") / "model_store"


@cache
def packaged_stores() -> tuple[Path, ...]:
    """Returns the folders with the models of installed packages."""
    return tuple(Path(package.load()) for package in entry_points(group=MODEL_PACKAGES))
