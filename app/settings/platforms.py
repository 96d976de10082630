"""Defaults that a platform or an image sets: Vertex AI's and SageMaker's variables and folder, and the image's model.

option, else PREDICTOR_* variable, else what is read here, else the service's default

https://docs.cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from app.store.manifest import MANIFEST_FILE
from app.store.model_store import ModelStore

logger = logging.getLogger("app.settings")

SAGEMAKER_MODEL: Final = Path("/opt/ml/model")
"""Where SageMaker puts the one model of an endpoint."""
SAGEMAKER_MODELS: Final = Path("/opt/ml/models")
"""Where SageMaker puts the models of an endpoint with several."""
_SAGEMAKER_PORT: Final = 8080
_EVERYWHERE: Final = "0.0.0.0"
_VARIABLES: Final = {
    "IMAGE_MODEL": "model",
    "IMAGE_MODEL_STORE": "model_store",
    "AIP_HTTP_PORT": "port",
    "AIP_HEALTH_ROUTE": "vertex_health_route",
    "AIP_PREDICT_ROUTE": "vertex_predict_route",
    "SAGEMAKER_BIND_TO_PORT": "port",
    "SAGEMAKER_MULTI_MODEL": "sagemaker_multi_model",
}
"""The variables of platforms, and the settings that they are defaults of."""


def platform_defaults(environment: Mapping[str, str], *, sagemaker_model: Path = SAGEMAKER_MODEL) -> dict[str, Any]:
    """Returns the values of settings that a platform asks for.

    Args:
        environment: the environment variables.
        sagemaker_model: the folder in which SageMaker puts a model, if this is SageMaker.
    """
    found: dict[str, Any] = {
        setting: environment[name] for name, setting in _VARIABLES.items() if environment.get(name)
    }
    is_sagemaker = sagemaker_model.is_dir() or "sagemaker_multi_model" in found
    if is_sagemaker:
        found.setdefault("port", _SAGEMAKER_PORT)
    if "port" in found:
        found["host"] = _EVERYWHERE
    if sagemaker_model.is_dir() and any(sagemaker_model.iterdir()):
        found |= _models_in(sagemaker_model)
    storage = environment.get("AIP_STORAGE_URI", "")
    if storage and "://" not in storage:
        found["model_store"] = storage
    return found


def tell_unused_storage(environment: Mapping[str, str]) -> None:
    """Logs a line if Vertex AI offers a model in a bucket, which is not fetched. Call it once logging is configured."""
    storage = environment.get("AIP_STORAGE_URI", "")
    if "://" in storage:
        logger.warning(
            "AIP_STORAGE_URI=%s is not fetched: put the model into the image, or mount it, and set "
            "PREDICTOR_MODEL_STORE.",
            storage,
        )


def _models_in(folder: Path) -> dict[str, str]:
    """Returns the settings that serve what a folder has: a published version, a store, or one TorchScript file."""
    if not (folder / MANIFEST_FILE).is_file() and (names := ModelStore(folder).names()):
        return {"model_store": str(folder), "model": ",".join(names)}
    return {"model": str(folder)}
