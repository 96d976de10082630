"""From a folder of photos to answers over HTTP: what the service says is what the evaluation measured."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.support.class_folders import write_classes
from tests.support.images import Pixels
from training.config.file import parse_config
from training.evaluation.evaluate import PREDICTIONS_FILE, RunEvaluation
from training.run import run_training

pytestmark = pytest.mark.slow

MAX_DEVIATION = 0.02  # docs/artifact.md, Fidelity


def test_photos_become_a_model_that_serves_what_its_evaluation_measured(
    tmp_path: Path, photos: dict[str, Pixels]
) -> None:
    folder = write_classes(tmp_path / "photos", photos, per_class=14, side=120)
    (folder / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    Image.open(folder / "coffee" / "000.jpg").convert("L").save(folder / "coffee" / "grey.png")
    config = parse_config(
        {
            "data": str(folder),
            "name": "places",
            "epochs": 12,
            "feature_views": 1,
            "runs": tmp_path / "runs",
            "store": tmp_path / "store",
            "tracking": "none",
            "device": "cpu",
            "threads": 1,
        },
        origin="The test",
    )
    run = run_training(config)
    evaluation = RunEvaluation.read(run)
    predictions = np.load(run.path / PREDICTIONS_FILE)
    identifiers, expected = predictions["identifiers"].tolist(), predictions["probabilities"]
    assert evaluation.test.accuracy >= 0.9
    assert "broken.jpg" in (run.path / "scan.json").read_text()

    with TestClient(create_app(Settings(model="places", model_store=config.store))) as client:
        while client.get("/health/startup").status_code != 200:
            time.sleep(0.05)
        description = client.get("/models/places").json()
        served = [client.post("/predict?top_k=5", content=(folder / name).read_bytes()).json() for name in identifiers]

    assert description["verified"] is True
    assert description["manifest"]["metrics"]["test_accuracy"] == pytest.approx(evaluation.test.accuracy)
    assert description["class_names"] == sorted(photos)
    for answer, probabilities in zip(served, expected, strict=True):
        found = np.zeros(len(photos))
        for prediction in answer["predictions"]:
            found[prediction["class_id"]] = prediction["probability"]
        assert np.abs(found - probabilities).max() <= MAX_DEVIATION
        assert found.argmax() == probabilities.argmax()
