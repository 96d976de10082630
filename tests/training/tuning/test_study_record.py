"""A study goes on with the data, the space, the metric and the settings that it was begun with, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from tests.support.class_folders import write_classes, write_patches
from tests.support.images import Pixels
from tests.support.training_runs import digits_config
from training.__main__ import main
from training.config.file import save_config
from training.tuning.search_space import load_space
from training.tuning.study import Search, open_study

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

SPACE = "optimiser: {values: [sgd, adamw]}\nlearning_rate: {low: 1e-4, high: 1e-1, log: true}\n"

GoOn = Callable[..., str]


@pytest.fixture
def photo_classes(tmp_path: Path, photos: dict[str, Pixels]) -> Path:
    return write_classes(tmp_path / "photos", {name: photos[name] for name in ("cat", "coffee")}, per_class=3)


@pytest.fixture
def go_on(tmp_path: Path, photo_classes: Path) -> GoOn:
    """Begins a study on photos; the function goes on with it by the command line and returns how that ended."""
    config = digits_config(tmp_path, data=str(photo_classes), image_size=16, channels=3)
    save_config(config, tmp_path / "config.yaml")
    (tmp_path / "space.yaml").write_text(SPACE)
    open_study(Search(config, load_space(tmp_path / "space.yaml")))

    def command(*flags: str, space: str = SPACE) -> str:
        (tmp_path / "space.yaml").write_text(space)
        with pytest.raises(SystemExit) as ended:
            main(["tune", "--config", str(tmp_path / "config.yaml"), "--space", str(tmp_path / "space.yaml"), *flags])
        return str(ended.value)

    return command


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (SPACE.replace("adamw]", "adamw, adam]"), '"adamw"]}, now {"values": ["sgd", "adamw", "adam"]}'),
        (SPACE.replace("{low: 1e-4, high: 1e-1, log: true}", "{values: [0.01]}"), 'now {"values": [0.01]}'),
        (SPACE.replace("1e-4", "1e-5"), 'now {"high": 0.1, "log": true, "low": 1e-05}'),
        (SPACE + "dropout: {values: [0.1]}\n", 'dropout in the space: not given, now {"values": [0.1]}'),
        (SPACE.splitlines()[0], "learning_rate in the space: {"),
    ],
)
def test_changed_space_is_named_and_refused(space: str, expected: str, go_on: GoOn) -> None:
    told = go_on(space=space)
    assert told.startswith("Error: The study 'study' was begun with ")
    assert expected in told
    assert told.endswith("Begin another study with --study other, or give what this one was begun with.")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--monitor", "val_loss"], 'monitor: "val_accuracy", now "val_loss". Its trials'),
        (["--epochs", "7"], "epochs: 2, now 7. Its trials"),
        (["--data", "digits"], "now 1797 images (digest "),
        (["--processes", "2", "--seed", "3"], "seed: 0, now 3. Its trials"),
    ],
)
def test_changed_aim_data_or_setting_is_named_and_refused(flags: list[str], expected: str, go_on: GoOn) -> None:
    assert expected in go_on(*flags)


def test_changed_data_are_refused(go_on: GoOn, photo_classes: Path, cat: Pixels) -> None:
    write_patches(photo_classes / "cat" / "new", cat, 1, seed=9)
    assert "data: 6 images (digest " in (told := go_on())
    assert "now 7 images (digest " in told


def test_study_of_unknown_origin_is_refused(go_on: GoOn, tmp_path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/runs/study/study.db", study_name="other")
    study.tell(study.ask(), 0.5)
    told = go_on("--study", "other", "--storage", f"sqlite:///{tmp_path}/runs/study/study.db")
    assert "does not say what it was begun with" in told


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_same_data_elsewhere_and_other_names_go_on(
    go_on: GoOn, tmp_path: Path, photo_classes: Path, cat: Pixels
) -> None:
    moved = photo_classes.rename(tmp_path / "moved")
    storage = f"sqlite:///{tmp_path}/runs/study/study.db"
    config = digits_config(tmp_path, data=str(moved), image_size=16, channels=3, runs=tmp_path / "else", workers=0)
    (tmp_path / "space.yaml").write_text(SPACE)
    assert open_study(Search(config, load_space(tmp_path / "space.yaml"), storage=storage)).trials == []
