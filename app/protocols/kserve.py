"""KServe's V1 protocol, which TensorFlow Serving began: a list of instances in, a list of predictions out.

{"instances": [...]} -> images -> {"predictions": [{label: probability}]}, as TorchServe's classifier gave behind KServe

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol
"""

from __future__ import annotations

import re
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from app.api.answering import Image
from app.api.bodies.uploads import Upload, read_whole
from app.errors import NotSupportedError, UnknownModelError
from app.models.served_model import ServedModel
from app.protocols.base64_images import decoded_instances
from app.protocols.classifying import add_classifying_route, by_label, classify_all, json_response
from app.protocols.documents import JSON_OBJECT, PREDICTION_CODES, answer_of, documented_errors
from app.protocols.error_shapes import ERROR_SHAPE
from app.protocols.json_bodies import as_object, parse_json
from app.serving.service import Service

_TAG: Final = "kserve"


def add_kserve_routes(app: FastAPI, service: Service) -> None:
    """Adds the routes of KServe's V1 protocol to an application.

    Args:
        app: the application.
        service: the service that classifies.
    """

    def model_of(name: str) -> ServedModel:
        try:
            return service.registry.get(name)
        except UnknownModelError:
            raise UnknownModelError(f"Model with name {name} does not exist.") from None

    async def models() -> Response:
        """The names of the models that serve."""
        return json_response({"models": [model.artifact.name for model in service.registry.served]})

    async def model(name: str) -> Response:
        """Whether a model serves; 503 while it does not."""
        return json_response({"name": model_of(name).artifact.name, "ready": True})

    async def predict(request: Request, name: str) -> Response:
        """The five most probable classes of each instance, which is an image in base64."""
        served = model_of(name)

        async def read(upload: Upload) -> list[Image]:
            body = as_object(await parse_json(await read_whole(request, upload), upload))
            most = service.settings.max_images_per_request
            return [*await decoded_instances(body.get("instances"), upload, max_images=most)]

        answers = await classify_all(service, request, served, read)
        return json_response({"predictions": [by_label(each, served) for each in answers]})

    async def explain(request: Request, name: str) -> Response:
        """Explanations are not made here: 501."""
        model_of(name)
        raise NotSupportedError("This service does not explain predictions.")

    unknown = documented_errors(ERROR_SHAPE, "unknown_model", "not_ready")
    app.add_api_route("/v1/models", models, tags=[_TAG], summary="List the models", response_class=Response,
                      responses=answer_of(_object(models={"type": "array", "items": {"type": "string"}})))  # fmt: skip
    readiness = answer_of(_object(name={"type": "string"}, ready={"type": "boolean"})) | unknown
    app.router.add_api_route(
        "/v1/models/{name}",
        model,
        methods=["GET"],
        route_class_override=_ModelRoute,
        tags=[_TAG],
        summary="Does a model serve?",
        response_class=Response,
        responses=readiness,
    )
    app.state.auth.open_patterns.append(re.compile(r"/v1/models/[^/:]+$"))
    add_classifying_route(
        app,
        "/v1/models/{name}:predict",
        predict,
        tag=_TAG,
        summary="Classify instances",
        documented=JSON_OBJECT,
        responses=answer_of(_object(predictions={"type": "array", "items": {"type": "object"}}))
        | documented_errors(ERROR_SHAPE, *PREDICTION_CODES),
    )
    add_classifying_route(
        app,
        "/v1/models/{name}:explain",
        explain,
        tag=_TAG,
        summary="Explain predictions: not done here",
        documented=JSON_OBJECT,
        responses=unknown | documented_errors(ERROR_SHAPE, "not_supported"),
    )


class _ModelRoute(APIRoute):
    """The route of a model itself: with a colon the path names what to do with it, and belongs to another route."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Returns whether a request is for this route."""
        return (Match.NONE, {}) if ":" in scope["path"] else super().matches(scope)


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}
