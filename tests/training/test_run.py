"""One command trains and publishes; a killed run goes on; several processes do the work of one."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from app.store.manifest import Manifest
from tests.support.training_runs import ENVIRONMENT, digits_config
from training.__main__ import main
from training.config.file import save_config
from training.evaluation.evaluate import RunEvaluation
from training.export.publish import run_predictor
from training.pictures.report import REPORT_FILE
from training.run import run_training
from training.runs.run_folder import RunFolder, read_json

pytestmark = pytest.mark.slow


def test_training_ends_in_a_published_model_that_predicts_as_the_run_does(tmp_path: Path) -> None:
    config = digits_config(tmp_path, epochs=2, name="small-digits")
    run = run_training(config)
    folder = Path(read_json(run.published_file)["folder"])
    assert folder == config.store / "small-digits" / "1"
    manifest = Manifest.read(folder)
    assert manifest.class_names == tuple("0123456789")
    assert manifest.architecture.name == "simple-cnn"
    assert manifest.seeds == {"run": 0}
    published = torch.jit.load(str(folder / "model.pt"))  # type: ignore[no-untyped-call]
    images = torch.randint(0, 256, (3, 3, 20, 31), dtype=torch.uint8)
    temperature = RunEvaluation.read(run).calibration.temperature
    torch.testing.assert_close(
        published(images), run_predictor(run, temperature=temperature)(images), rtol=1e-4, atol=1e-5
    )
    environment = read_json(run.environment_file)
    assert environment["seed"] == 0
    assert environment["threads"] == 1
    assert environment["libraries"]["torch"] == torch.__version__.split("+")[0]
    assert read_json(run.baseline_file)["guess_accuracy"] == pytest.approx(0.1)
    assert environment["git_commit"] is None or len(environment["git_commit"]) >= 40
    run.baseline_file.unlink()
    run_training(run.config(), run)  # resuming a run that is over publishes nothing more
    assert not run.baseline_file.exists()  # measured before training, or not at all
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_training_evaluates_and_reports_before_it_publishes(digits_run: RunFolder) -> None:
    assert RunEvaluation.read(digits_run).test.image_count > 0
    assert (digits_run.path / REPORT_FILE).is_file()


def test_run_killed_at_random_moments_ends_bit_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "PYTHONPATH"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["training.__main__", "training.run"])  # importing takes seconds: once
    config = digits_config(tmp_path, epochs=10, publish=False, ema_decay=0.9, augmentation="affine",
                           checkpoint_every_steps=5, mixup=0.2)  # fmt: skip
    whole = run_training(config)
    config = config.model_copy(update={"runs": tmp_path / "killed"})
    save_config(config, tmp_path / "config.yaml")
    command = ["train", "--config", str(tmp_path / "config.yaml")]
    moment = random.Random(0)
    kills = 0
    while kills < 3:
        steps = sorted((tmp_path / "killed").glob("*/steps.jsonl"))
        size = steps[0].stat().st_size if steps else 0
        process = processes.Process(target=main, args=(command,))
        process.start()
        while process.is_alive():  # at least until it has learned something more
            steps = sorted((tmp_path / "killed").glob("*/steps.jsonl"))
            if steps and steps[0].stat().st_size > size:
                break
            time.sleep(0.01)
        time.sleep(moment.uniform(0, 0.2))
        if not process.is_alive():
            break
        process.kill()
        process.join()
        kills += 1
        command = ["train", "--config", str(tmp_path / "config.yaml"), "--resume"]
    assert kills >= 1
    last = processes.Process(target=main, args=(command,))
    last.start()
    last.join(120)
    assert last.exitcode == 0
    (resumed,) = (RunFolder(path) for path in (tmp_path / "killed").iterdir())
    expected = torch.load(whole.last_checkpoint, weights_only=True)
    found = torch.load(resumed.last_checkpoint, weights_only=True)
    assert found["progress"] == expected["progress"]
    for part in ("model", "average"):
        for name, tensor in expected[part].items():
            torch.testing.assert_close(found[part][name], tensor, rtol=0, atol=0)
    assert resumed.steps_file.read_text() == whole.steps_file.read_text()


def test_ctrl_c_ends_a_run_with_a_sentence(tmp_path: Path) -> None:
    config = digits_config(tmp_path, epochs=500, publish=False)
    save_config(config, tmp_path / "config.yaml")
    command = [sys.executable, "-m", "training", "train", "--config", str(tmp_path / "config.yaml")]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        while not list(config.runs.glob("*/steps.jsonl")) and run.poll() is None:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        told, _ = run.communicate(timeout=60)

    assert run.returncode == 130
    (folder,) = config.runs.iterdir()
    assert f"Stopped. Continue with --resume {folder}" in told
    assert "Traceback" not in told


def test_two_processes_do_the_work_of_one(tmp_path: Path) -> None:
    config = digits_config(tmp_path, epochs=3, augmentation="none", dropout=0, batchnorm=False, name="shared")
    alone = run_training(config.model_copy(update={"name": "alone"}))
    save_config(config, tmp_path / "config.yaml")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "training"]
    outcome = subprocess.run(
        [*launch, "train", "--config", str(tmp_path / "config.yaml")],
        env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    (together,) = (RunFolder(path) for path in config.runs.glob("shared-*"))
    assert read_json(together.environment_file)["processes"] == 2
    assert [path.name for path in (config.store / "shared").iterdir()] == ["1"]
    one, two = ([json.loads(line) for line in run.history_file.read_text().splitlines()] for run in (alone, together))
    assert len(two) == 3
    for of_one, of_two in zip(one, two, strict=True):
        # Nothing in this network depends on how a batch is divided: only the order of float32 sums differs.
        assert of_two["train_loss"] == pytest.approx(of_one["train_loss"], rel=5e-3)
        assert of_two["val_loss"] == pytest.approx(of_one["val_loss"], rel=5e-3)
        assert of_two["val_accuracy"] == pytest.approx(of_one["val_accuracy"], abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data", "digits", "--lerning-rate", "1"], "no flag --lerning-rate. Did you mean 'learning_rate'"),
        (["--data", "digits", "--optimiser", "adan"], "Did you mean 'adam'"),
        (
            ["--data", "digits", "--name", "My Flowers"],
            "other characters than a-z, 0-9, '.', '_' and '-'. Try my-flowers.",
        ),
        (["--data", "nowhere"], "neither a folder nor a data set"),
        ([], "data is missing"),
        (["--resume", "nowhere"], "nowhere is no run's folder"),
        (["--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
    ],
)
def test_mistakes_end_the_command_with_one_sentence(
    arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "train",
                *arguments,
                *(["--runs", str(tmp_path), "--tracking", "none"] if "--resume" not in arguments else []),
            ]
        )
    assert str(ended.value).startswith("Error: ")
    assert expected in str(ended.value)
