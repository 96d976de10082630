"""One configuration comes from a file, from flags or from both; a mistake is told with the nearest valid name."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.config.file import load_config, parse_config, save_config
from training.errors import ConfigError


def test_flags_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("data: digits\nlearning-rate: 1e-3\nepochs: 3\n")
    config = load_config(path, {"epochs": 7})
    assert (config.data, config.learning_rate, config.epochs) == ("digits", 0.001, 7)


def test_saved_configuration_reads_back_as_it_was(tmp_path: Path) -> None:
    config = parse_config({"data": "photos", "mean": [0.5], "std": [0.25], "statistics": "given", "channels": 1,
                           "architecture": "simple-cnn"}, origin="here")  # fmt: skip
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_home_folder_is_expanded_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    path = tmp_path / "run.yaml"
    path.write_text("data: ~/photos\nruns: ~/runs\ndownload-folder: ~/sets\n")
    config = load_config(path, {"store": "~/store"})
    assert config.data == "/home/ann/photos"
    assert [str(folder) for folder in (config.runs, config.download_folder, config.store)] == [
        "/home/ann/runs", "/home/ann/sets", "/home/ann/store",
    ]  # fmt: skip


def test_photos_get_the_transfer_recipe_by_default() -> None:
    config = parse_config({"data": "photos"}, origin="here")
    assert config.pretrained
    assert config.frozen_epochs == config.epochs
    assert config.feature_views > 0


def test_recipe_leaves_what_is_given() -> None:
    config = parse_config({"data": "photos", "frozen_epochs": 3, "mixup": 0.2}, origin="here")
    assert (config.frozen_epochs, config.feature_views) == (3, 0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"lerning_rate": 0.1}, "Did you mean 'learning_rate'"),
        ({"lr": 0.1}, "Did you mean 'learning_rate'"),
        ({"optimizer": "sgd"}, "Did you mean 'optimiser'"),
        ({"optimiser": "adamv"}, "Did you mean 'adam"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"epochs": 0}, "epochs: Input should be greater than or equal to 1, not 0"),
        ({"data": ""}, "data is missing"),
        ({"resize_size": 100, "image_size": 128}, "resize_size"),
        ({"architecture": "simple-cnn", "frozen_epochs": 1}, "pretrained: true"),
        ({"schedule": "multi-step"}, "milestones"),
        ({"warmup_epochs": 50}, "warmup_epochs"),
        ({"optimiser": "sgd", "momentum": 0}, "nesterov"),
        ({"mean": [0.5, 0.5, 0.5]}, "statistics: given"),
        ({"channels": 2}, "channels must be 1"),
    ],
)
def test_mistakes_are_told_with_the_way_out(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        parse_config({"data": "photos"} | settings, origin="The file")


@pytest.mark.parametrize("content", ["a: [", "- 1\n- 2\n"])
def test_file_that_holds_no_settings_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load_config(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read: No such file"):
        load_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("path", sorted(Path("configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_each_example_is_possible(path: Path) -> None:
    if path.stem.startswith("space"):
        from training.tuning.search_space import load_space

        assert load_space(path)
    else:
        load_config(path, {"data": "somewhere"})
