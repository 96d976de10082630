"""The routes that classify images.

parameters -> which model? -> answering.py: read the upload, classify -> answers.py: shape the answer
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Header, Path, Query, Request, Response
from pydantic import BaseModel

from app.api.answering import TIMEOUT_HEADER, Answering, Image, whole_number
from app.api.answers import answer_of, answer_of_batch, check_answer_size, image_prediction
from app.api.bodies.uploads import Upload, read_image, read_images
from app.api.classifying_route import ClassifyingRoute
from app.api.models import ModelName
from app.api.problems import problem_details, responses
from app.api.schemas import (
    BatchPrediction,
    FailedImage,
    ImagePrediction,
    Prediction,
)
from app.errors import ImageError, InvalidParameterError, PredictorError
from app.models.served_model import ServedModel
from app.serving.service import Service

logger = logging.getLogger(__name__)

_DEFAULT_TOP_K = 5

ModelVersion = Annotated[str, Path(description="Its version", examples=["1"])]

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Response]])
TopK = Annotated[
    int | None,
    Query(ge=1, description=f"How many classes to return, up to all of them. Default: {_DEFAULT_TOP_K}", examples=[3]),
]
TimeoutMs = Annotated[
    int | None,
    Header(
        alias=TIMEOUT_HEADER,
        ge=1,
        description="Milliseconds that the client waits for its answer; can only shorten the service's own limit",
        examples=[2000],
    ),
]

_UNAVAILABLE = ("request_too_slow", "overloaded", "not_ready", "draining", "deadline_exceeded", "internal")
_PREDICT_ERRORS = responses(
    "empty_body", "corrupt_image", "unknown_model", "body_too_large", "too_many_pixels", "too_much_memory",
    "too_much_work",
    "unsupported_format", "unsupported_encoding", "missing_file", "invalid_parameter", *_UNAVAILABLE,
)  # fmt: skip
_BATCH_ERRORS = responses(
    "empty_body", "corrupt_image", "body_too_large", "answer_too_large", "unsupported_encoding", "missing_file",
    "invalid_parameter", *_UNAVAILABLE,
)  # fmt: skip
_BINARY = {"type": "string", "format": "binary", "minLength": 1}


class _PredictRoute(ClassifyingRoute):
    """A route whose endpoint takes `top_k` and `timeout_ms` too."""

    async def call(self, request: Request) -> Response:
        """Returns the endpoint's answer to a request; a parameter that was not sent is None."""
        top_k = request.query_params.get("top_k") if request.scope["query_string"] else None
        response: Response = await self.endpoint(
            request,
            **request.scope["path_params"],
            top_k=whole_number("top_k", top_k),
            timeout_ms=whole_number(TIMEOUT_HEADER, request.headers.get(TIMEOUT_HEADER)),
        )
        return response


def _body(form_properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    form = {"type": "object", "properties": form_properties, "required": required}
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    content |= {media_type: {"schema": _BINARY} for media_type in ("image/*", "application/octet-stream")}
    return {"requestBody": {"required": True, "content": content}}


_ONE_IMAGE = _body({"file": _BINARY}, ["file"])
_SEVERAL_IMAGES = _body({"files": {"type": "array", "items": _BINARY}}, ["files"])


def add_prediction_routes(app: FastAPI, service: Service) -> None:
    """Adds the routes that classify images to an application.

    Args:
        app: the application.
        service: the service that classifies.
    """
    settings = service.settings

    def model_for(top_k: int | None, name: str | None = None, version: str | None = None) -> tuple[ServedModel, int]:
        model = service.registry.get(name, version)
        class_count = len(model.artifact.class_names)
        if top_k is not None and top_k > class_count:
            raise InvalidParameterError(f"top_k is {top_k}; the model has {class_count} classes.")
        return model, top_k or min(_DEFAULT_TOP_K, class_count)

    def answering(request: Request, model: ServedModel, timeout_ms: int | None) -> Answering:
        return Answering(service, request, model, math.inf if timeout_ms is None else timeout_ms / 1000)

    async def predict_one(request: Request, model: ServedModel, top_k: int, timeout_ms: int | None) -> Response:
        way = answering(request, model, timeout_ms)

        async def read(upload: Upload) -> list[Image]:
            return [await read_image(request, upload)]

        async def answer(image: Image, deadline: float) -> ImagePrediction:
            return await image_prediction(await way.classify(image, deadline), model.artifact.class_names, top_k)

        [answered] = await way.each(read, answer)
        prediction = Prediction(
            model=model.artifact.name,
            version=model.artifact.version,
            predictions=answered.predictions,
            image=answered.image,
        )
        return await answer_of(prediction, predictions=top_k, admission=service.admission)

    def image_route(
        path: str,
        summary: str,
        *,
        methods: tuple[str, ...] = ("POST", "PUT"),
        response_model: type[BaseModel] = Prediction,
        errors: dict[int | str, dict[str, Any]] = _PREDICT_ERRORS,
        body: dict[str, Any] = _ONE_IMAGE,
    ) -> Callable[[Handler], Handler]:
        # OpenAPI wants an operation id for each method: a handler for two methods is registered twice.
        def register(handler: Handler) -> Handler:
            for method in methods:
                app.router.add_api_route(
                    path,
                    handler,
                    route_class_override=_PredictRoute,
                    methods=[method],
                    operation_id=f"{handler.__name__}_{method.lower()}" if len(methods) > 1 else None,
                    summary=summary,
                    tags=["predict"],
                    response_model=response_model,
                    responses=errors,
                    openapi_extra=body,
                )
            return handler

        return register

    @image_route("/predict", "Classify an image with the default model")
    async def predict(request: Request, top_k: TopK = None, timeout_ms: TimeoutMs = None) -> Response:
        """Send the image as the form field `file`, or as the raw body, whatever its content type."""
        return await predict_one(request, *model_for(top_k), timeout_ms)

    @image_route(
        "/predict/batch",
        "Classify several images with the default model",
        methods=("POST",),
        response_model=BatchPrediction,
        errors=_BATCH_ERRORS,
        body=_SEVERAL_IMAGES,
    )
    async def predict_batch(request: Request, top_k: TopK = None, timeout_ms: TimeoutMs = None) -> Response:
        """Send each image as a form field `files`. An image that fails gets an error as its result."""
        model, top_k = model_for(top_k)

        way, request_id = answering(request, model, timeout_ms), request.state.request_id

        async def read(upload: Upload) -> list[bytearray]:
            images = await read_images(request, upload, max_images=settings.max_images_per_request)
            check_answer_size(len(images), top_k)
            return images

        async def answer(image: Image, deadline: float) -> ImagePrediction | FailedImage:
            try:
                return await image_prediction(await way.classify(image, deadline), model.artifact.class_names, top_k)
            except ImageError as error:
                return FailedImage(error=problem_details(error.code, error.detail, request_id))
            except PredictorError:  # it concerns the request or the service, and so all images
                raise
            except Exception:
                logger.exception("An image of request %s failed.", request_id)
                detail = "The image could not be classified; the log has the reason under the request id."
                return FailedImage(error=problem_details("internal", detail, request_id))

        results = await way.each(read, answer)
        name, version = model.artifact.name, model.artifact.version
        predictions = top_k * len(results)
        return await answer_of_batch(name, version, results, predictions=predictions, admission=service.admission)

    @image_route("/models/{name}/predict", "Classify an image with a model")
    async def predict_with_model(
        request: Request, name: ModelName, top_k: TopK = None, timeout_ms: TimeoutMs = None
    ) -> Response:
        """As /predict, with the model of this name."""
        return await predict_one(request, *model_for(top_k, name), timeout_ms)

    @image_route("/models/{name}/versions/{version}/predict", "Classify an image with a version of a model")
    async def predict_with_version(
        request: Request, name: ModelName, version: ModelVersion, top_k: TopK = None, timeout_ms: TimeoutMs = None
    ) -> Response:
        """As /predict, with this version of the model."""
        return await predict_one(request, *model_for(top_k, name, version), timeout_ms)
