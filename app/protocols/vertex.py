"""Vertex AI's custom containers: the routes that its variables name, and the answers of its own image classification.

AIP_HEALTH_ROUTE -> 200 when ready
AIP_PREDICT_ROUTE: {"instances": [...], "parameters": {...}} or one image -> ids, displayNames, confidences

A route that exists already, such as `/v1/models/m:predict`, keeps its own protocol.

https://docs.cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI, Request, Response
from starlette.routing import Match

from app.api.answering import Image
from app.api.bodies.uploads import Upload, read_image
from app.errors import InvalidParameterError, InvalidRequestError
from app.inference.pipeline import Classification
from app.models.served_model import ServedModel
from app.protocols.base64_images import decoded_instances
from app.protocols.classifying import TOP, add_classifying_route, best, classify_all, json_response
from app.protocols.documents import IMAGE_OR_JSON, PREDICTION_CODES, answer_of, documented_errors
from app.protocols.error_shapes import ERROR_SHAPE
from app.protocols.json_bodies import as_object, looks_like_json, parse_json
from app.protocols.parameters import number_of, whole_number_of
from app.serving.service import Service

_TAG: Final = "vertex"


def add_vertex_routes(app: FastAPI, service: Service, *, health_route: str | None, predict_route: str | None) -> None:
    """Adds the routes that Vertex AI asks for to an application that has all its other routes.

    Args:
        app: the application.
        service: the service that classifies.
        health_route: the path of the probe; None if Vertex AI names none.
        predict_route: the path of predictions; None if Vertex AI names none.
    """

    async def health() -> Response:
        """200 when requests should be sent here, else 503."""
        service.check_ready()
        return json_response({"status": "ready"})

    async def predict(request: Request) -> Response:
        """The most probable classes of each instance, or of the one image that is the body."""
        model, parameters = service.registry.get(), _Parameters({})

        async def read(upload: Upload) -> list[Image]:
            nonlocal parameters
            body = await read_image(request, upload)
            if not looks_like_json(body):  # Vertex AI's rawPredict sends it as it is
                return [body]
            value = as_object(await parse_json(body, upload))
            parameters = _Parameters(value.get("parameters"))
            most = service.settings.max_images_per_request
            return [*await decoded_instances(value.get("instances"), upload, max_images=most)]

        answers = await classify_all(service, request, model, read)
        return json_response({"predictions": [parameters.prediction(each, model) for each in answers]})

    if health_route and not _exists(app, "GET", health_route):
        app.add_api_route(
            health_route,
            health,
            tags=[_TAG],
            summary="May requests be sent here?",
            response_class=Response,
            responses=documented_errors(ERROR_SHAPE, "not_ready", "draining"),
        )
        app.state.auth.open_paths |= {health_route}
    if predict_route and not _exists(app, "POST", predict_route):
        predictions = {"type": "object", "properties": {"predictions": {"type": "array", "items": {"type": "object"}}}}
        add_classifying_route(
            app,
            predict_route,
            predict,
            tag=_TAG,
            summary="Classify instances, as Vertex AI does",
            documented=IMAGE_OR_JSON,
            responses=answer_of(predictions) | documented_errors(ERROR_SHAPE, *PREDICTION_CODES),
        )


class _Parameters:
    """The `parameters` of a request: how many classes, and how probable at least."""

    def __init__(self, given: Any) -> None:
        if not isinstance(given, dict | None):
            raise InvalidRequestError("`parameters` must be a JSON object.")
        given = given or {}
        self.count = TOP
        for name in ("top_k", "maxPredictions"):
            self.count = whole_number_of(given, name, least=1) or self.count
        threshold = number_of(given, "confidenceThreshold") or 0.0
        if not 0 <= threshold <= 1:
            raise InvalidParameterError("confidenceThreshold must be a number from 0 to 1.")
        self.threshold = threshold

    def prediction(self, classification: Classification, model: ServedModel) -> dict[str, list[Any]]:
        chosen = [each for each in best(classification, model, self.count) if each[2] >= self.threshold]
        return {
            "ids": [str(class_id) for class_id, _, _ in chosen],
            "displayNames": [name for _, name, _ in chosen],
            "confidences": [probability for _, _, probability in chosen],
        }


def _exists(app: FastAPI, method: str, path: str) -> bool:
    scope = {"type": "http", "method": method, "path": path, "root_path": ""}
    return any(route.matches(scope)[0] is Match.FULL for route in app.routes)
