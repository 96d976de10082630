"""What Open Inference Protocol tells about a model: its metadata, its configuration as Triton writes it, its state."""

from __future__ import annotations

from typing import Any, Final

from app.models.deployment import Deployment
from app.models.served_model import ServedModel
from app.protocols.json_bodies import JsonBody
from app.protocols.oip.codec import INPUT_NAME, OUTPUT_NAME

PLATFORM: Final = "pytorch_torchscript"
EXTENSIONS: Final = (
    "classification", "binary_tensor_data", "model_configuration", "model_repository", "statistics", "parameters",
)  # fmt: skip
"""The extensions that are spoken, as Triton names them."""


def metadata(model: ServedModel) -> JsonBody:
    """Returns the metadata of a model: its one input and its one output."""
    artifact = model.artifact
    side = artifact.geometry.image_size if artifact.geometry else -1
    return {
        "name": artifact.name,
        "versions": [artifact.version],
        "platform": PLATFORM,
        "inputs": [{"name": INPUT_NAME, "datatype": "UINT8", "shape": [-1, side, side, 3]}],
        "outputs": [{"name": OUTPUT_NAME, "datatype": "FP32", "shape": [-1, len(artifact.class_names)]}],
    }


def configuration(model: ServedModel, *, max_images: int) -> JsonBody:
    """Returns the configuration of a model, as Triton's clients read it.

    Args:
        model: the model.
        max_images: the most images of a request.
    """
    artifact = model.artifact
    side = artifact.geometry.image_size if artifact.geometry else -1
    return {
        "name": artifact.name,
        "platform": PLATFORM,
        "backend": "pytorch",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": max_images,
        "input": [
            {"name": INPUT_NAME, "data_type": "TYPE_UINT8", "format": "FORMAT_NHWC", "dims": [side, side, 3]},
        ],
        "output": [
            {
                "name": OUTPUT_NAME,
                "data_type": "TYPE_FP32",
                "dims": [len(artifact.class_names)],
                "label_filename": "labels.txt",
            }
        ],
        "instance_group": [_instance_group(model)],
    }


def _instance_group(model: ServedModel) -> dict[str, Any]:
    devices = model.engine.device.split(",")
    gpus = [int(each.partition(":")[2]) for each in devices if each.startswith("cuda:")]
    kind = "KIND_GPU" if gpus else "KIND_CPU"
    return {"name": model.artifact.name, "kind": kind, "count": model.layout.streams, "gpus": gpus}


def index_entry(deployment: Deployment) -> JsonBody:
    """Returns the entry of a model in the index of the repository."""
    model = deployment.model
    state = "READY" if model else "UNAVAILABLE" if deployment.failure else "LOADING"
    entry = {"name": deployment.name, "version": model.artifact.version if model else "", "state": state}
    return entry if model else {**entry, "reason": deployment.reason}
