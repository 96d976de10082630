"""SageMaker's multi-model endpoints: the platform loads models below a folder, and unloads what nobody asks for.

The platform is the only caller, so no key guards these routes. They take the place of the service's own `/models`.

https://docs.aws.amazon.com/sagemaker/latest/dg/mms-container-apis.html
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request, Response

from app.errors import ConflictError, InvalidRequestError, ModelRejectedError, UnknownModelError
from app.models.deployment import Deployment
from app.protocols.classifying import json_response
from app.protocols.json_bodies import JsonBody, small_object_of
from app.serving.service import Service
from app.store.references import model_file_in

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def add_multi_model_routes(app: FastAPI, service: Service, root: Path) -> None:
    """Adds the routes to an application.

    Args:
        app: the application.
        service: the service whose models the platform chooses.
        root: the folder that has a folder for each model.
    """
    registry = service.registry

    def deployment_of(name: str) -> Deployment:
        found = next((each for each in registry.deployments if each.name == name), None)
        if found is None:
            raise UnknownModelError(f"No model {name!r} is loaded.")
        return found

    async def load(request: Request) -> Response:
        """Loads a model, and answers when it serves."""
        given = await small_object_of(request, service)
        name, url = given.get("model_name"), given.get("url")
        if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(url, str):
            raise InvalidRequestError("`model_name` must be a name, and `url` the folder of its model.")
        if any(each.name == name for each in registry.deployments):
            raise ConflictError(f"Model {name!r} is loaded already.")
        file = await registry.disk.call(lambda: _file_of(url, root), limit_s=10)
        try:
            await service.watcher.load(name, reference=f"{name}={file}")
        except ModelRejectedError as error:  # whose 409 would tell the platform that the model is there
            raise InvalidRequestError(error.detail) from error
        return json_response(_description(deployment_of(name)))

    async def models() -> Response:
        """The models that are loaded."""
        return json_response({"models": [_description(each) for each in registry.deployments]})

    async def model(name: str) -> Response:
        """One model that is loaded."""
        return json_response(_description(deployment_of(name)))

    async def unload(name: str) -> Response:
        """Unloads a model, once the requests inside have their answers."""
        description = _description(deployment_of(name))
        await service.watcher.unload(name)
        return json_response(description)

    def add(path: str, endpoint: Any, method: str) -> None:
        app.add_api_route(path, endpoint, methods=[method], tags=["sagemaker"], include_in_schema=False)

    add("/models", load, "POST")
    add("/models", models, "GET")
    add("/models/{name}", model, "GET")
    add("/models/{name}", unload, "DELETE")


def _description(deployment: Deployment) -> JsonBody:
    return {"modelName": deployment.name, "modelUrl": str(Path(deployment.source).parent)}


def _file_of(url: str, root: Path) -> Path:
    """Returns the file of the model in a folder below `root`.

    Raises:
        InvalidRequestError: the folder is elsewhere, is not there, or has not exactly one model.
    """
    try:
        folder = Path(url).resolve(strict=True)
        if not folder.is_relative_to(root.resolve()) or not folder.is_dir():
            raise InvalidRequestError(f"`url` must be a folder below {root}.")
        return model_file_in(folder)
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"`url` has no model that can be served: {error}.") from error
