"""The store is the one of this folder or of this user; a model that it lacks may come from an installed package."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from app.errors import ArtifactError, UnknownModelError
from app.settings import ModelSettings
from app.store import places
from app.store.model_store import ModelStore
from tests.support.colours import StartApp, colour_image, export_colours

PACKAGED: Path | None = None
"""What the entry point of a package names in these tests."""


@pytest.fixture
def package(colours_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package that brings the model `colours`."""
    monkeypatch.setattr(f"{__name__}.PACKAGED", colours_store)
    installed = EntryPoint("colours", f"{__name__}:PACKAGED", places.MODEL_PACKAGES)
    monkeypatch.setattr(places, "entry_points", lambda *, group: [installed] if group == installed.group else [])
    places.packaged_stores.cache_clear()
    yield colours_store
    places.packaged_stores.cache_clear()


def test_store_is_the_one_of_this_folder_or_else_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("app.store.places.user_data_path", lambda program: tmp_path / "data" / program)
    assert ModelSettings().model_store == tmp_path / "data" / "image-predictor" / "model_store"
    (tmp_path / "model_store").mkdir()

    assert ModelSettings().model_store == Path("model_store")


def test_model_of_a_package_serves_from_a_store_that_does_not_exist(
    package: Path, start_app: StartApp, tmp_path: Path
) -> None:
    client = start_app(model_store=tmp_path / "none")

    assert client.get("/models/colours").json()["verified"] is True
    assert client.post("/predict", content=colour_image("red")).json()["predictions"][0]["class_name"] == "red"
    assert ModelStore(tmp_path / "none").names() == ["colours"]


def test_what_the_store_has_itself_comes_first(package: Path, tmp_path: Path) -> None:
    for _ in range(3):
        export_colours(tmp_path)
    store = ModelStore(tmp_path)

    assert store.versions("colours") == [1, 2, 3]
    assert store.resolve("colours").parent == tmp_path / "colours"


def test_model_of_a_package_is_neither_pinned_nor_pruned(package: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    with pytest.raises(ArtifactError, match="comes from a package"):
        store.pin("colours", 1)

    assert store.prune("colours", keep=1).deleted == ()
    assert store.versions("colours") == [1]


def test_default_model_that_is_missing_is_told_with_the_command_that_gets_it(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="To get it: pip install image-predictor-imagenet"):
        ModelStore(tmp_path).resolve("imagenet")
    with pytest.raises(UnknownModelError, match=r"Published there: none\.$"):
        ModelStore(tmp_path).resolve("flowers")
