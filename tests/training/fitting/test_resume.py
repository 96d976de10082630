"""A run that was interrupted goes on, and ends bit for bit as if it had never stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.training_runs import RunInterruptedError, digits_config, interrupt_after, make_trainer, read_lines
from training.errors import RunError
from training.fitting.resume import cut_logs
from training.runs.checkpoint import Progress, load_best
from training.runs.run_folder import create_run

pytestmark = pytest.mark.slow

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
    with pytest.raises(RunInterruptedError):
        first.fit(interrupt_after(2))
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
            raise RunInterruptedError
        take_step()

    monkeypatch.setattr(first.optimiser, "step", step)
    with pytest.raises(RunInterruptedError):
        first.fit()
    resumed = make_trainer(config, first.run)
    resumed.fit()
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, rtol=0, atol=0)
    ours, theirs = read_lines(resumed.run.history_file), read_lines(whole.run.history_file)
    assert [line["train_loss"] for line in ours] == [line["train_loss"] for line in theirs]


def test_full_disk_leaves_the_last_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(digits_config(tmp_path, epochs=3))
    with pytest.raises(RunInterruptedError):
        trainer.fit(interrupt_after(1))
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


def test_run_killed_before_its_first_checkpoint_begins_with_empty_logs(tmp_path: Path) -> None:
    trainer = make_trainer(digits_config(tmp_path, epochs=1))
    for log in (trainer.run.history_file, trainer.run.steps_file):
        log.write_text('{"epoch": 1, "step": 1, "loss": 0.0}\n')
    trainer.fit()
    assert [line["epoch"] for line in read_lines(trainer.run.history_file)] == [1]
    assert [line["step"] for line in read_lines(trainer.run.steps_file)] == list(range(1, 21))


def test_logs_are_cut_to_the_last_checkpoint(tmp_path: Path) -> None:
    run = create_run(digits_config(tmp_path))
    run.history_file.write_text('{"epoch": 1}\n{"epoch": 2}\n')
    run.steps_file.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')  # killed while it wrote
    cut_logs(run, Progress(epoch=1, global_step=3))
    assert read_lines(run.history_file) == [{"epoch": 1}]
    assert read_lines(run.steps_file) == [{"step": 1}, {"step": 2}, {"step": 3}]
