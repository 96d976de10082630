"""The loop learns, keeps its best weights, stops when told, and goes on bit-equal after any interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.class_folders import write_classes
from tests.support.images import Pixels
from tests.support.training_runs import digits_config, make_trainer, read_lines
from training.config.settings import TrainConfig
from training.errors import ConfigError, DivergedError, RunError
from training.fitting.accelerator import make_accelerator
from training.networks.transfer import head_of
from training.runs.checkpoint import load_best
from training.runs.run_folder import create_run, read_json


class _InterruptedError(Exception):
    pass


def _interrupt_after(epochs: int) -> Any:
    def on_epoch(metrics: dict[str, Any]) -> None:
        if metrics["epoch"] == epochs:
            raise _InterruptedError

    return on_epoch


def test_loop_learns_the_digits_and_logs_every_step(tmp_path: Path) -> None:
    trainer = make_trainer(digits_config(tmp_path, epochs=4, augmentation="none", dropout=0, ema_decay=0.9))
    trainer.fit()
    history, steps = read_lines(trainer.run.history_file), read_lines(trainer.run.steps_file)
    assert [line["epoch"] for line in history] == [1, 2, 3, 4]
    assert history[-1]["val_accuracy"] > 0.85
    assert history[-1]["train_loss"] < history[0]["train_loss"] / 2
    assert [line["step"] for line in steps] == list(range(1, 4 * 20 + 1))
    of_first = [line["loss"] for line in steps if line["epoch"] == 1]
    assert history[0]["train_loss"] == pytest.approx(sum(of_first) / len(of_first), rel=0.05)
    best = load_best(trainer.run.best_checkpoint)
    assert best.metrics["val_accuracy"] == max(line["val_accuracy"] for line in history)
    baseline = read_json(trainer.run.baseline_file)
    assert baseline["guess_accuracy"] == pytest.approx(0.1)
    assert baseline["val_accuracy"] < 0.35
    assert baseline["majority_accuracy"] == pytest.approx(0.1, abs=0.01)


RECIPES: dict[str, dict[str, object]] = {
    "adamw, average, mixup": {"ema_decay": 0.9, "mixup": 0.2, "augmentation": "affine", "schedule": "one-cycle"},
    "sgd, plateau, cutmix": {"optimiser": "sgd", "schedule": "reduce-on-plateau", "cutmix": 1.0, "warmup_epochs": 1},
    "rmsprop, clipped": {"optimiser": "rmsprop", "gradient_clip": 0.5, "augmentation": "randaugment"},
    "from files, bf16": {"cache": "none", "workers": 1, "precision": "bf16", "random_erasing": 0.5},
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_resumed_run_ends_bit_equal_to_one_never_stopped(recipe: dict[str, object], tmp_path: Path) -> None:
    config = digits_config(tmp_path, epochs=3, **recipe)
    whole = make_trainer(config)
    whole.fit()
    first = make_trainer(config)
    with pytest.raises(_InterruptedError):
        first.fit(_interrupt_after(2))
    torch.manual_seed(999)  # a new process has drawn other numbers
    resumed = make_trainer(config, first.run)
    resumed.fit()
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, rtol=0, atol=0)
    assert read_lines(resumed.run.steps_file) == read_lines(whole.run.steps_file)
    assert vars(load_best(resumed.run.best_checkpoint)).keys() == vars(load_best(whole.run.best_checkpoint)).keys()
    assert load_best(resumed.run.best_checkpoint).metrics == load_best(whole.run.best_checkpoint).metrics


def test_run_resumes_within_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = digits_config(tmp_path, epochs=2, checkpoint_every_steps=7, ema_decay=0.9)
    whole = make_trainer(config)
    whole.fit()
    first = make_trainer(config)
    take_step, taken = first.optimiser.step, iter(range(11))

    def step() -> None:
        if next(taken, None) is None:
            raise _InterruptedError
        take_step()

    monkeypatch.setattr(first.optimiser, "step", step)
    with pytest.raises(_InterruptedError):
        first.fit()
    resumed = make_trainer(config, first.run)
    resumed.fit()
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, rtol=0, atol=0)
    ours, theirs = read_lines(resumed.run.history_file), read_lines(whole.run.history_file)
    assert [line["train_loss"] for line in ours] == [line["train_loss"] for line in theirs]


def test_same_seed_gives_the_same_weights_and_another_does_not(tmp_path: Path) -> None:
    trainers = [make_trainer(digits_config(tmp_path, epochs=1, seed=seed)) for seed in (3, 3, 4)]
    for trainer in trainers:
        trainer.fit()
    first, same, other = (trainer.model.state_dict()["head.output.weight"] for trainer in trainers)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_early_stopping_waits_for_its_patience(tmp_path: Path) -> None:
    trainer = make_trainer(
        digits_config(
            tmp_path,
            epochs=9,
            learning_rate=1e-12,
            early_stopping_patience=2,
            monitor="val_loss",
            batchnorm=False,
            optimiser="sgd",
        )
    )
    trainer.fit()
    assert trainer.progress.stopped_early
    best = trainer.progress.best_epoch + 1
    assert len(read_lines(trainer.run.history_file)) == best + 2 < 9
    again = make_trainer(trainer.config, trainer.run)
    again.fit()
    assert len(read_lines(trainer.run.history_file)) == best + 2


def test_diverging_run_says_where_and_what_to_do(tmp_path: Path) -> None:
    trainer = make_trainer(digits_config(tmp_path, optimiser="sgd", learning_rate=1e6, batchnorm=False))
    with pytest.raises(DivergedError, match=r"The loss is (nan|inf) at step \d+ .* Lower learning_rate"):
        trainer.fit()
    assert trainer.run.last_checkpoint.is_file()


def test_full_disk_leaves_the_last_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(digits_config(tmp_path, epochs=3))
    with pytest.raises(_InterruptedError):
        trainer.fit(_interrupt_after(1))
    before = trainer.run.last_checkpoint.read_bytes()

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    resumed = make_trainer(trainer.config, trainer.run)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", no_space)
        with pytest.raises(RunError, match=r"No space left on device. Free some space, then continue with --resume"):
            resumed.fit()
    assert trainer.run.last_checkpoint.read_bytes() == before
    assert [path.name for path in trainer.run.last_checkpoint.parent.iterdir() if path.name.startswith(".")] == []
    make_trainer(trainer.config, trainer.run).fit()
    assert [line["epoch"] for line in read_lines(trainer.run.history_file)] == [1, 2, 3]


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"cannot be made in .*file.*Make that folder writable, or choose another"):
        create_run(digits_config(tmp_path, runs=tmp_path / "file"))


def _photo_config(tmp_path: Path, photos: dict[str, Pixels], **settings: object) -> TrainConfig:
    folder = tmp_path / "photos"
    if not folder.is_dir():
        write_classes(folder, {name: photos[name] for name in ("cat", "coffee", "rocket")}, per_class=14, side=80)
    fixed: dict[str, object] = {
        "data": str(folder), "architecture": "efficientnet-lite0", "pretrained": True, "channels": 3, "image_size": 64,
        "frozen_epochs": 2, "epochs": 2, "batch_size": 8, "horizontal_flip": True,
    }  # fmt: skip
    return digits_config(tmp_path, **(fixed | settings))


def test_frozen_backbone_stays_and_the_head_learns_from_kept_features(
    tmp_path: Path, photos: dict[str, Pixels]
) -> None:
    config = _photo_config(tmp_path, photos, feature_views=2, epochs=4, frozen_epochs=4)
    trainer = make_trainer(config)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.fit()
    changed = {name for name, tensor in trainer.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"classifier.1.weight", "classifier.1.bias"}
    assert read_lines(trainer.run.history_file)[-1]["val_accuracy"] >= 0.8


def test_features_or_pixels_give_the_same_validation(tmp_path: Path, photos: dict[str, Pixels]) -> None:
    by_features = make_trainer(_photo_config(tmp_path, photos, feature_views=1))
    by_pixels = make_trainer(_photo_config(tmp_path, photos))
    for trainer in (by_features, by_pixels):
        trainer._baseline()
    features, pixels = read_json(by_features.run.baseline_file), read_json(by_pixels.run.baseline_file)
    assert features["val_loss"] == pytest.approx(pixels["val_loss"], rel=1e-4)


def test_backbone_thaws_by_stages_at_a_smaller_rate(tmp_path: Path, photos: dict[str, Pixels]) -> None:
    config = _photo_config(
        tmp_path, photos, feature_views=1, frozen_epochs=1, epochs=2, unfreezing="staged", schedule="constant"
    )
    trainer = make_trainer(config)
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    trainer.fit()
    changed = {name.split(".")[0] for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"bn2", "classifier"}  # the last stage only
    assert head_of(trainer.model)[0] == "classifier"
    resumed_run = create_run(config)
    first = make_trainer(config, resumed_run)
    with pytest.raises(_InterruptedError):
        first.fit(_interrupt_after(1))
    resumed = make_trainer(config, resumed_run)
    resumed.fit()
    for name, tensor in trainer.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"precision": "fp16"}, "fp16 needs a GPU"), ({"device": "cuda"}, "no CUDA device here")],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU says")
def test_what_the_machine_cannot_do_is_told(settings: dict[str, object], expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=expected):
        make_accelerator(digits_config(tmp_path, **settings))
