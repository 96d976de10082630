"""Tells the log and the metrics which model serves, and how it was proven."""

from __future__ import annotations

import logging

from prometheus_client import Gauge

from app.models.served_model import ServedModel
from app.telemetry.metrics import Metrics

logger = logging.getLogger("app.models")


def announce(model: ServedModel, metrics: Metrics, *, seconds: float) -> None:
    """Tells that a model serves from now on, and begins to count its batches.

    Args:
        model: the model.
        metrics: where loads, the model's description and its batches are counted.
        seconds: how long it took to load it.
    """
    artifact, engine, check = model.artifact, model.engine, model.golden_check
    verdict = f"golden check passed, |dp| <= {check.max_abs_deviation:.1g}" if check else "UNVERIFIED: no manifest"
    logger.info(
        "Model %s/%s is ready after %.1f s: %d classes, %s in %s on %s, %s, %s",
        artifact.name, artifact.version, seconds, len(artifact.class_names), engine.name, engine.precision,
        engine.device, model.layout, verdict,
    )  # fmt: skip
    metrics.model_loads.labels("ready").inc()
    info_of(model, metrics).set(1)
    if check:
        metrics.golden_deviation.labels(artifact.name, artifact.version).set(check.max_abs_deviation)
        metrics.golden_bound.labels(artifact.name, artifact.version).set(check.bound)
    # Only now, so that the batches of warm-up and golden check do not count.
    model.pipeline.count_batches(metrics.of_model(artifact.name, artifact.version).batch_size.observe)


def info_of(model: ServedModel, metrics: Metrics) -> Gauge:
    """Returns the gauge that describes a model by its labels: 1 while it serves."""
    artifact, engine, check = model.artifact, model.engine, model.golden_check
    return metrics.model_info.labels(
        artifact.name, artifact.version, engine.name, engine.precision, str(engine.device), str(bool(check)).lower()
    )
