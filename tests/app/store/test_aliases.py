"""A model may be served under another name, and come from a folder that has one model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.settings import ModelSettings
from app.store.references import references, split_alias
from tests.support.colours import StartApp, colour_image, export_colours


def wanted(value: str) -> tuple[str, ...]:
    """Returns the references that the setting `model` means."""
    return ModelSettings(model=value).model_references


@pytest.mark.parametrize(
    ("reference", "alias", "source"),
    [
        ("a=imagenet", "a", "imagenet"),
        ("My_Model.1=imagenet/2", "My_Model.1", "imagenet/2"),
        ("a=/data/b.pt", "a", "/data/b.pt"),
        ("a=b=c", "a", "b=c"),
        ("imagenet", None, "imagenet"),
        ("/run=3/b.pt", None, "/run=3/b.pt"),
        ("a=", None, "a="),
        ("=a", None, "=a"),
        (" =a", None, " =a"),
    ],
)
def test_alias_is_what_stands_before_the_first_sign(reference: str, alias: str | None, source: str) -> None:
    assert split_alias(reference) == (alias, source)


def test_file_whose_name_has_the_sign_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run=3.pt").touch()

    assert split_alias("run=3.pt") == (None, "run=3.pt")


@pytest.mark.parametrize("value", ["a=x,a=y", "a=x,a", "a,a=x/1"])
def test_two_models_must_not_have_one_name(value: str) -> None:
    with pytest.raises(ValueError, match="'a' is the name of two models"):
        wanted(value)


def test_one_model_may_have_several_names() -> None:
    assert wanted("imagenet,a=imagenet,b=imagenet/1") == ("imagenet", "a=imagenet", "b=imagenet/1")


def test_alias_is_the_name_everywhere(start_app: StartApp) -> None:
    client = start_app(model="colours,other=colours,third=colours/1")
    red = colour_image("red")
    expected = client.post("/predict", content=red).json()

    for name in ("other", "third"):
        assert client.post(f"/models/{name}/predict", content=red).json() == {**expected, "model": name}
        assert client.get(f"/models/{name}").json()["name"] == name
        assert client.post(f"/predictions/{name}", content=red).status_code == 200
    listed = {each["name"]: each["reference"] for each in client.get("/models").json()["models"]}
    assert listed == {"colours": "colours", "other": "other=colours", "third": "third=colours/1"}
    assert 'predictor_images_total{format="PNG",model="other"} 2.0' in client.get("/metrics").text


def test_new_version_is_served_under_the_alias(start_app: StartApp, store_root: Path) -> None:
    client = start_app(model="other=colours", model_store=store_root, watch_store_s=0.05)
    assert client.get("/models/other").json()["version"] == "1"

    export_colours(store_root)

    while client.get("/models/other").json()["version"] != "2":
        pass
    assert client.get("/models/other").json()["name"] == "other"


@pytest.fixture
def version(store_root: Path) -> Path:
    """The folder of a published version."""
    return store_root / "colours" / "1"


def test_folder_stands_for_the_one_model_in_it(version: Path, store_root: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone"
    lone.mkdir()
    shutil.copy(version / "model.pt", lone / "mine.pt")

    assert references(f"a={version}") == (f"a={version / 'model.pt'}",)
    assert references(str(store_root)) == (str(version / "model.pt"),)
    assert references(str(lone)) == (str(lone / "mine.pt"),)
    export_colours(store_root)
    assert references(str(store_root)) == (str(store_root / "colours" / "2" / "model.pt"),)


def test_folder_without_one_model_is_told(store_root: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="exactly one model; found: none"):
        wanted(str(empty))
    export_colours(store_root, "more")
    with pytest.raises(ValueError, match="exactly one model; found: colours, more"):
        wanted(f"a={store_root}")


def test_published_version_outside_a_store_is_verified(start_app: StartApp, version: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(version, tmp_path / "mounted")
    client = start_app(model=f"mounted={folder}")
    answer = client.post("/predict", content=colour_image("red")).json()
    assert (answer["model"], answer["version"]) == ("mounted", "1")
    assert client.get("/models/mounted").json()["verified"] is True

    (folder / "model.pt").write_bytes((folder / "model.pt").read_bytes() + b"x")
    client = start_app(model=f"mounted={folder}")
    assert client.get("/models").json()["models"][0]["state"] == "failed"
