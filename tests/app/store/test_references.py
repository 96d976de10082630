"""The setting `model` asks for models by name and by path."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.store.manifest import MODEL_FILE
from app.store.references import check_names, references
from tests.support.colours import export_colours


def test_comma_separates_unless_it_is_in_the_path_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tom, dick, harry" / "a,b.pt"
    path.parent.mkdir()
    path.touch()

    assert references(f"imagenet, {path},b/2") == ("imagenet", str(path), "b/2")
    assert references(f"{path},{path}") == (str(path), str(path))
    assert references("a.pt,b.pt, ,c/1,") == ("a.pt", "b.pt", "c/1")


def test_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a,b.pt").touch()

    assert references("~/x.pt,~/a,b.pt,imagenet") == (f"{tmp_path}/x.pt", f"{tmp_path}/a,b.pt", "imagenet")


@pytest.mark.parametrize("names", [("a/best.pt", "b/best.pt"), ("a/My Model.pt", "b/my-model.pth")])
def test_two_files_of_one_name_are_refused_by_both_their_paths(names: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="rename one file") as refusal:
        check_names(("imagenet", "c/other.pt", *names))

    assert all(name in str(refusal.value) for name in names)


def test_published_files_are_told_apart_by_the_names_inside_them(tmp_path: Path) -> None:
    files = [str(export_colours(tmp_path, name) / MODEL_FILE) for name in ("colours", "colours", "hues")]
    check_names(files)

    shutil.copy(files[0], tmp_path / "copy.pt")
    with pytest.raises(ValueError, match="both version 1 of 'colours'"):
        check_names([*files, str(tmp_path / "copy.pt")])
