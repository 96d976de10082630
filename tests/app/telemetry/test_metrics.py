"""Predictions and batches are counted right, and no client can make the metrics grow."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.inference.pipeline import Classification
from app.telemetry.metrics import MAX_COUNTED_CLASSES, Metrics
from tests.support.colours import StartApp, colour_image


def samples(client: TestClient) -> dict[str, float]:
    """Returns what `/metrics` shows, by name and labels as they are written there."""
    text = client.get("/metrics").text
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if not line.startswith("#")
    }


def classification(class_id: int, class_count: int = 1000) -> Classification:
    probabilities = np.zeros(class_count, dtype=np.float32)
    probabilities[class_id] = 0.75
    times = {"decode_s": 0.01, "queue_s": 0.0, "inference_s": 0.02, "decode_started_at": 0.0}
    ranking = np.argsort(-probabilities, kind="stable")
    return Classification(probabilities, ranking, "JPEG", 640, 480, (), batch_size=1, **times)


def test_predictions_are_counted_by_class_and_confidence(own_client: TestClient) -> None:
    for colour in ("red", "red", "blue"):
        own_client.post("/predict", content=colour_image(colour))
    found = samples(own_client)

    assert found['predictor_predictions_total{class_id="0",class_name="red",model="colours"}'] == 2
    assert found['predictor_predictions_total{class_id="2",class_name="blue",model="colours"}'] == 1
    assert found['predictor_confidence_count{model="colours"}'] == 3
    assert 0.33 < found['predictor_confidence_sum{model="colours"}'] / 3 <= 1


def test_classes_beyond_the_limit_are_counted_together() -> None:
    metrics = Metrics()
    class_names = tuple("crane" if class_id < 2 else f"class {class_id}" for class_id in range(1000))
    for version in ("1", "2"):
        for class_id in range(150):
            metrics.of_model("large", version).count_image(classification(class_id), class_names)
    family = next(
        family
        for family in text_string_to_metric_families(metrics.render().decode())
        if family.name == "predictor_predictions"
    )
    counts = {(each.labels["class_id"], each.labels["class_name"]): each.value for each in family.samples
              if each.name.endswith("_total")}  # fmt: skip

    assert len(counts) == MAX_COUNTED_CLASSES + 1
    assert counts["", "other"] == 2 * (150 - MAX_COUNTED_CLASSES)
    assert counts["0", "crane"] == counts["1", "crane"] == 2  # of the same name, and told apart


def test_a_batch_is_counted_once_and_those_of_the_golden_check_are_not(start_app: StartApp) -> None:
    client = start_app(streams=1, max_batch_size=4, max_batch_delay_ms=200)
    assert samples(client)['predictor_batch_size_count{model="colours"}'] == 0

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: client.post("/predict", content=colour_image("red")), range(4)))
    found = samples(client)

    assert found['predictor_batch_size_sum{model="colours"}'] == 4
    assert found['predictor_inference_seconds_count{model="colours"}'] == 4
    assert found['predictor_batch_size_count{model="colours"}'] < 4


def test_no_request_adds_a_label_of_its_own(own_client: TestClient) -> None:
    own_client.get("/metrics")
    before = set(samples(own_client))
    for number in range(20):
        own_client.request(f"BREW{number}", f"/coffee/{number}")
        own_client.post(f"/models/model-{number}/predict", content=b"x")
    added = {
        re.sub(r"_bucket|_count|_sum|_created", "", name.split("{")[0]) for name in set(samples(own_client)) - before
    }
    requests = [name for name in set(samples(own_client)) - before if name.startswith("predictor_requests_total")]

    assert added <= {"predictor_requests_total", "predictor_requests", "predictor_request_seconds"}
    assert len(requests) <= 4, requests
    assert any('method="other"' in name for name in requests)


def test_golden_deviation_is_shown_beside_its_bound(client: TestClient) -> None:
    found = samples(client)

    labels = '{model="colours",version="1"}'
    assert found[f"predictor_golden_deviation{labels}"] <= found[f"predictor_golden_bound{labels}"] == 1e-3
