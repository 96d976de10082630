"""Whatever bytes the names of files and folders hold, a run works: scan, split, report, logs, publishing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app.store.manifest import Manifest
from tests.support.class_folders import write_patches
from tests.support.images import Pixels
from training.__main__ import main
from training.data.names import printable
from training.evaluation.evaluate import load_predictions
from training.runs.run_folder import RunFolder, read_json
from training.runs.tracking import EXPERIMENT

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # MLflow warns as it pleases

_NAMES = (
    b"caf\xe9.jpg",
    b"\xff\xfe\x80.jpg",
    b"two\nlines.jpg",
    b"<b>&amp;.jpg",
    b"[red]x[].jpg",
    b"back\\slash.jpg",
    "日本語 🐈.jpg".encode(),
    b" leading.jpg",
    b"%s{0}$HOME.jpg",
    b"-rf.jpg",
    b"\"quoted'.jpg",
    b"\x1b[31m.jpg",
)


@pytest.fixture
def mlflow_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """Looks into an MLflow database of the test's own. What another test has set in this process would win over it."""
    import mlflow

    before, own = mlflow.get_tracking_uri(), f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own)
    mlflow.set_tracking_uri(own)
    yield mlflow.MlflowClient(tracking_uri=own)
    mlflow.set_tracking_uri(before)


def test_run_on_files_of_any_name(
    tmp_path: Path,
    photos: dict[str, Pixels],
    mlflow_client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    data = os.fsencode(tmp_path) + b"/photos-\xe9"
    classes = {"coffee": b"coffee", "caf\\xe9": b"caf\xe9"}
    for seed, folder in enumerate(classes.values()):
        path = Path(os.fsdecode(data + b"/" + folder))
        write_patches(path, photos["coffee"], len(_NAMES), seed=seed)
        for number, name in enumerate(_NAMES):
            (path / f"{number:03}.jpg").rename(path / os.fsdecode(name))
        (path / os.fsdecode(b"broken-\xe9.jpg")).write_bytes(b"nothing")
        (path / os.fsdecode(b"gone-\xe9.jpg")).symlink_to("nowhere")
    shutil.copytree(os.fsdecode(data + b"/coffee"), os.fsdecode(data + b"/@eaDir/\xe9"), symlinks=True)
    monkeypatch.chdir(tmp_path)
    command = ["train", "--data", os.fsdecode(data), "--architecture", "simple-cnn", "--widths", "[8]", "--epochs", "1",
               "--image-size", "16", "--device", "cpu", "--threads", "1", "--name", "any"]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["training", *command])
    main(command)
    (run,) = (RunFolder(path) for path in (tmp_path / "runs").iterdir())
    printed = capfd.readouterr().err
    assert "MLflow does not log" not in printed
    assert "\x1b[31m" not in printed
    assert "2 files are unreadable and left out, such as " in printed
    assert "2 files left out, such as caf\\xe9/gone-\\xe9.jpg: a link to something that is not there" in printed
    split = json.loads((run.path / "split.json").read_text(encoding="utf-8"))
    assert split["class_names"] == sorted(classes)
    named = {name for part in ("train", "val", "test") for name, _ in split[part]}
    assert named == {f"{folder}/{printable(os.fsdecode(name))}" for folder in classes for name in _NAMES}
    assert len(named) == 2 * len(_NAMES)
    tested = load_predictions(run).identifiers
    assert set(tested) == {name for name, _ in split["test"]}
    report = (run.path / "report.html").read_text(encoding="utf-8")
    assert "caf\\xe9" in report
    assert read_json(run.environment_file)["command"][2] == command[1]
    manifest = Manifest.read(Path(read_json(run.published_file)["folder"]))
    assert list(manifest.class_names) == sorted(classes)
    assert manifest.training_data is not None
    assert manifest.training_data.name == "photos-\\xe9"
    experiment = mlflow_client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (logged,) = mlflow_client.search_runs([experiment.experiment_id])
    assert logged.data.params["data"].endswith("photos-\\udce9")
    assert {"split.json", "report.html", "scan.json"} <= {
        file.path for file in mlflow_client.list_artifacts(logged.info.run_id)
    }
    main(["evaluate", "--model", "any", "--data", os.fsdecode(data)])
    told = capfd.readouterr().out
    assert "photos-" in told
    assert "Left out: " in told
    main(["report", str(run.path)])
