"""A run's best weights as a `Predictor`, and into the model store.

run folder -> best_predictor -> evaluation, visualisation; -> publish_run: golden images of its test split -> export
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from app.manifest import TrainingData
from training.checkpoint import load_best
from training.data import PreparedData
from training.export import Provenance, export
from training.models import build_model
from training.predictor import Predictor
from training.run_folder import RunFolder

_GOLDEN_IMAGES = 8


def best_predictor(run: RunFolder, *, temperature: float = 1.0) -> Predictor:
    """Returns the run's best weights as a `Predictor`, on the CPU, in evaluation mode.

    Raises:
        RunError: the run has no best checkpoint, or it cannot be read.
    """
    config = run.config()
    best = load_best(run.best_checkpoint)
    model = build_model(config, len(best.class_names), load_pretrained=False)
    model.load_state_dict(best.model)
    return Predictor(
        model,
        best.class_names,
        image_size=config.image_size,
        resize_size=config.shorter_side,
        mean=best.mean,
        std=best.std,
        temperature=temperature,
    )


def publish_run(
    run: RunFolder, data: PreparedData, *, metrics: Mapping[str, float] | None = None, temperature: float = 1.0
) -> Path:
    """Publishes the best weights as the next version of the model.

    Args:
        run: the run.
        data: of the run.
        metrics: for the manifest; by default those of validation.
        temperature: that divides the logits.

    Returns:
        the folder of the new version.
    """
    config = run.config()
    best = load_best(run.best_checkpoint)
    return export(
        best_predictor(run, temperature=temperature),
        store_root=config.store,
        name=config.name,
        golden_images=golden_images(data),
        provenance=Provenance(
            architecture=config.architecture,
            training_data=TrainingData(
                name=config.data_name or os.path.basename(os.path.normpath(config.data)),
                licence=config.data_licence,
                image_count=len(data.split.train),
            ),
            metrics=best.metrics if metrics is None else metrics,
            seeds={"run": config.seed},
        ),
    )


def golden_images(data: PreparedData) -> Sequence[bytes]:
    """Returns a few test images, encoded, of as many classes as there are."""
    chosen: dict[int, int] = {}
    for index in data.split.test:
        chosen.setdefault(data.source.labels[index], index)
    return [data.source.encoded(index) for index in list(chosen.values())[:_GOLDEN_IMAGES]]
