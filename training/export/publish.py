"""Makes a `Predictor` of the weights of a run, and publishes it.

run folder -> run_predictor -> evaluation, pictures; publish_run: golden images from the test split -> export
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from app.store.manifest import TrainingData
from training.data.names import printable
from training.data.prepared import PreparedData
from training.errors import RunError
from training.export.export import Provenance, export
from training.export.predictor import Predictor
from training.networks.build import build_model
from training.runs.checkpoint import load_best, load_checkpoint
from training.runs.run_folder import RunFolder

_GOLDEN_IMAGES = 8
_MAX_GOLDEN_BYTES = 256 * 1024  # they are all inside model.pt

CheckpointName = Literal["best", "last"]


def run_predictor(run: RunFolder, *, checkpoint: CheckpointName = "best", temperature: float = 1.0) -> Predictor:
    """Returns a `Predictor` with the weights of a run, on the CPU, in evaluation mode.

    Args:
        run: the folder of the run.
        checkpoint: the weights to take: those of the best epoch, or of the newest checkpoint. The newest one gives
            averaged weights if the run keeps an average.
        temperature: the number that divides the logits.

    Raises:
        RunError: the run has no such checkpoint, or it cannot be read.
    """
    config = run.config()
    best = load_best(run.best_checkpoint)
    model = build_model(config, len(best.class_names), load_pretrained=False)
    model.load_state_dict(best.model if checkpoint == "best" else _last_weights(run))
    return Predictor(
        model,
        best.class_names,
        image_size=config.image_size,
        resize_size=config.shorter_side,
        mean=best.mean,
        std=best.std,
        temperature=temperature,
    )


def _last_weights(run: RunFolder) -> Mapping[str, Any]:
    last = load_checkpoint(run.last_checkpoint)
    if last.average is None:
        return last.model
    prefix = "module."  # torch's AveragedModel wraps the network
    return {name.removeprefix(prefix): tensor for name, tensor in last.average.items() if name.startswith(prefix)}


def publish_run(
    run: RunFolder,
    data: PreparedData,
    *,
    metrics: Mapping[str, float] | None = None,
    temperature: float = 1.0,
    checkpoint: CheckpointName = "best",
    name: str | None = None,
    store_root: Path | None = None,
    onnx: bool | None = None,
) -> Path:
    """Publishes the weights of a run as the next version of a model.

    Args:
        run: the folder of the run.
        data: the data of the run.
        metrics: the figures for the manifest; None takes those of validation.
        temperature: the number that divides the logits.
        checkpoint: the weights to publish: those of the best epoch, or of the newest checkpoint.
        name: the name of the model; None takes that of the run.
        store_root: the folder of the model store; None takes that of the run.
        onnx: whether the twin `model.onnx` is written too; None writes it if its packages are installed.

    Returns:
        the folder of the new version.

    Raises:
        ExportError: the verification failed; nothing was published.
        RunError: the run has no such weights, or the store cannot be written.
    """
    config = run.config()
    best = load_best(run.best_checkpoint)
    store_root = config.store if store_root is None else store_root
    try:
        return export(
            run_predictor(run, checkpoint=checkpoint, temperature=temperature),
            store_root=store_root,
            name=config.name if name is None else name,
            golden_images=golden_images(data),
            provenance=Provenance(
                architecture=config.architecture,
                training_data=TrainingData(
                    name=config.data_name or printable(os.path.basename(os.path.normpath(config.data))),
                    licence=config.data_licence,
                    image_count=len(data.split.train),
                ),
                metrics=best.metrics if metrics is None else metrics,
                seeds={"run": config.seed},
            ),
            onnx=onnx,
        )
    except OSError as error:
        raise RunError(
            f"The model cannot be published in {store_root.resolve()}: {error.strerror}. The run is kept: make room, "
            f"or make the folder writable, then `python -m training export {run.path}`."
        ) from error


def golden_images(data: PreparedData) -> Sequence[bytes]:
    """Returns a few encoded images of the test split, each of another class.

    Files are taken as they are, so that the golden check decodes what users send. Large files are made smaller.
    """
    chosen: dict[int, int] = {}
    for index in data.split.test:
        chosen.setdefault(data.source.labels[index], index)
    return [_golden_image(data, index) for index in list(chosen.values())[:_GOLDEN_IMAGES]]


def _golden_image(data: PreparedData, index: int) -> bytes:
    encoded = data.source.encoded(index)
    if len(encoded) <= _MAX_GOLDEN_BYTES:
        return encoded
    image = data.source.image(index).pixels
    side = data.settings.shorter_side
    scale = side / min(image.size)
    # At most four times as long as wide: a panorama would stay as large as its file.
    size = [min(4 * side, max(1, round(length * scale))) for length in image.size]
    smaller = io.BytesIO()
    image.resize((size[0], size[1])).save(smaller, "PNG")
    return smaller.getvalue()
