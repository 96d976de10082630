"""What Triton's statistics extension tells, from the service's own counters, so that the workers add up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from app.models.served_model import ServedModel
from app.protocols.json_bodies import JsonBody
from app.telemetry.metrics import Metrics

_STEPS: Final = {"queue": "queue", "compute_input": "decode", "compute_infer": "inference"}
"""Triton's names of the steps, and those of the service's metrics."""


def statistics(models: Iterable[ServedModel], metrics: Metrics) -> JsonBody:
    """Returns the statistics of models since the service started; all versions of a model count together.

    Args:
        models: the models that serve.
        metrics: the counters.
    """
    seconds = {step: metrics.totals(f"predictor_{metric}_seconds_sum", "model") for step, metric in _STEPS.items()}
    images = metrics.totals("predictor_images_total", "model")
    batches = metrics.totals("predictor_batch_size_count", "model")
    requests = metrics.totals("predictor_model_requests_total", "model", "outcome")
    last = metrics.totals("predictor_last_inference_timestamp_seconds", "model")

    def of(model: ServedModel) -> JsonBody:
        name, key = model.artifact.name, (model.artifact.name,)
        count = int(images.get(key, 0))
        steps = {step: {"count": count, "ns": _ns(seconds[step].get(key, 0.0))} for step in _STEPS}
        nothing = {"count": 0, "ns": 0}  # output is written with the answer, and nothing is cached
        return {
            "name": name,
            "version": model.artifact.version,
            "last_inference": int(1000 * last.get(key, 0)),
            "inference_count": count,
            "execution_count": int(batches.get(key, 0)),
            "inference_stats": {
                "success": {
                    "count": int(requests.get((name, "success"), 0)),
                    "ns": sum(step["ns"] for step in steps.values()),
                },
                "fail": {"count": int(requests.get((name, "fail"), 0)), "ns": 0},
                **steps,
                "compute_output": nothing,
                "cache_hit": nothing,
                "cache_miss": nothing,
            },
            "batch_stats": [],
        }

    return {"model_stats": [of(model) for model in models]}


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
