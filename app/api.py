"""Routes: read the request, call the service, shape the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path as FilePath
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Path, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.direct_route import DirectRoute
from app.engine_choice import Candidate
from app.errors import InvalidParameterError
from app.golden import GoldenCheck
from app.problems import responses
from app.registry import ServedModel, Slot
from app.schemas import (
    BatchPrediction,
    EngineCandidate,
    FailedImage,
    GoldenCheckDescription,
    Health,
    ImagePrediction,
    ModelDescription,
    ModelDetails,
    ModelList,
    Prediction,
)
from app.service import Service, unless_disconnected, within
from app.uploads import read_image, read_images

_DEFAULT_TOP_K = 5
_INDEX_PAGE = FilePath(__file__).parent / "index.html"

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Response]])
TopK = Annotated[
    int | None,
    Query(ge=1, description=f"How many classes to return, up to all of them. Default: {_DEFAULT_TOP_K}", examples=[3]),
]
ModelName = Annotated[str, Path(description="A model of GET /models", examples=["imagenet"])]
ModelVersion = Annotated[str, Path(description="Its version", examples=["1"])]

_UNAVAILABLE = ("overloaded", "not_ready", "draining", "deadline_exceeded", "internal")
_PREDICT_ERRORS = responses(
    "empty_body", "corrupt_image", "unknown_model", "body_too_large", "too_many_pixels", "unsupported_format",
    "missing_file", "invalid_parameter", *_UNAVAILABLE,
)  # fmt: skip
_BATCH_ERRORS = responses("empty_body", "body_too_large", "missing_file", "invalid_parameter", *_UNAVAILABLE)
_BINARY = {"type": "string", "format": "binary", "minLength": 1}


def _body(form_properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    form = {"type": "object", "properties": form_properties, "required": required}
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    content |= {media_type: {"schema": _BINARY} for media_type in ("image/*", "application/octet-stream")}
    return {"requestBody": {"required": True, "content": content}}


_ONE_IMAGE = _body({"file": _BINARY}, ["file"])
_SEVERAL_IMAGES = _body({"files": {"type": "array", "items": _BINARY}}, ["files"])


def add_routes(app: FastAPI, service: Service) -> None:
    """Adds the routes over a service to an application."""
    settings = service.settings

    def model_for(top_k: int | None, name: str | None = None, version: str | None = None) -> tuple[ServedModel, int]:
        model = service.registry.get(name, version)
        class_count = len(model.artifact.class_names)
        if top_k is not None and top_k > class_count:
            raise InvalidParameterError(f"top_k is {top_k}; the model has {class_count} classes.")
        return model, top_k or min(_DEFAULT_TOP_K, class_count)

    async def predict_one(request: Request, model: ServedModel, top_k: int) -> Response:
        deadline = request.state.started_at + settings.request_timeout_s
        with service.admit():
            encoded = await within(deadline, read_image(request, max_body_bytes=settings.max_body_bytes))
            work = service.classify(model, encoded, top_k=top_k, deadline=deadline, timings=request.state.timings)
            answer = await unless_disconnected(request, work, deadline=deadline)
        prediction = Prediction(
            model=model.artifact.name,
            version=model.artifact.version,
            predictions=answer.predictions,
            image=answer.image,
        )
        return Response(prediction.model_dump_json(), media_type="application/json")

    def image_route(path: str, summary: str) -> Callable[[Handler], Handler]:
        # OpenAPI wants one operation id for each method, so that one handler is registered twice.
        def register(handler: Handler) -> Handler:
            for method in ("POST", "PUT"):
                app.router.add_api_route(
                    path,
                    handler,
                    route_class_override=DirectRoute,
                    methods=[method],
                    operation_id=f"{handler.__name__}_{method.lower()}",
                    summary=summary,
                    tags=["predict"],
                    response_model=Prediction,
                    responses=_PREDICT_ERRORS,
                    openapi_extra=_ONE_IMAGE,
                )
            return handler

        return register

    @image_route("/predict", "Classify an image with the default model")
    async def predict(request: Request, top_k: TopK = None) -> Response:
        """Send the image as the form field `file`, or as the raw body, whatever its content type."""
        return await predict_one(request, *model_for(top_k))

    @app.post(
        "/predict/batch",
        summary="Classify several images with the default model",
        tags=["predict"],
        response_model=BatchPrediction,
        responses=_BATCH_ERRORS,
        openapi_extra=_SEVERAL_IMAGES,
    )
    async def predict_batch(request: Request, top_k: TopK = None) -> Response:
        """Classify several images, each a form field `files`. One that fails has an error for its result."""
        model, top_k = model_for(top_k)
        deadline = request.state.started_at + settings.request_timeout_s

        async def classify_all(images: list[bytearray]) -> list[ImagePrediction | FailedImage]:
            return await asyncio.gather(
                *(
                    service.classify_or_explain(
                        model,
                        encoded,
                        request_id=request.state.request_id,
                        top_k=top_k,
                        deadline=deadline,
                        timings=request.state.timings,
                    )
                    for encoded in images
                )
            )

        with service.admit():
            reading = read_images(
                request, max_body_bytes=settings.max_body_bytes, max_images=settings.max_images_per_request
            )
            images = await within(deadline, reading)
            with service.admit(len(images) - 1):
                results = await unless_disconnected(request, classify_all(images), deadline=deadline)
        answer = BatchPrediction(model=model.artifact.name, version=model.artifact.version, results=results)
        return Response(answer.model_dump_json(), media_type="application/json")

    @image_route("/models/{name}/predict", "Classify an image with a model")
    async def predict_with_model(request: Request, name: ModelName, top_k: TopK = None) -> Response:
        """As /predict."""
        return await predict_one(request, *model_for(top_k, name))

    @image_route("/models/{name}/versions/{version}/predict", "Classify an image with a version of a model")
    async def predict_with_version(
        request: Request, name: ModelName, version: ModelVersion, top_k: TopK = None
    ) -> Response:
        """As /predict."""
        return await predict_one(request, *model_for(top_k, name, version))

    @app.get("/models", tags=["models"], summary="List the models")
    async def models() -> ModelList:
        """List the models that this service was asked to serve, and their state."""
        return ModelList(models=[_describe(slot, is_default=slot is service.registry.slots[0])
                                 for slot in service.registry.slots])  # fmt: skip

    @app.get("/models/{name}", tags=["models"], summary="Describe a model", responses=responses("unknown_model"))
    async def model(name: ModelName) -> ModelDetails:
        """Describe a model: manifest, device, engine, precision, golden check."""
        slot = service.registry.slot(name)
        description = _describe(slot, is_default=slot is service.registry.slots[0])
        if slot.model is None:
            return ModelDetails(**dict(description))
        artifact = slot.model.artifact
        return ModelDetails(
            **dict(description),
            class_names=list(artifact.class_names),
            engine_candidates=[_describe_candidate(each, slot.model) for each in slot.model.candidates],
            manifest=artifact.manifest,
        )

    @app.get("/health/live", tags=["health"], summary="Is the process alive?")
    async def live() -> Health:
        """Whether the process can answer at all; if not, restart it."""
        return Health(status="live")

    @app.get(
        "/health/ready",
        tags=["health"],
        summary="May requests be sent here?",
        responses=responses("not_ready", "draining"),
    )
    async def ready() -> Health:
        """Whether requests should be sent here: a verified model serves, and the service is not draining."""
        service.check_ready()
        return Health(status="ready")

    @app.get("/health/startup", tags=["health"], summary="Has it started?", responses=responses("not_ready"))
    async def startup() -> Health:
        """Whether loading has come to an end, good or bad."""
        service.check_started()
        return Health(status="started")

    @app.get(
        "/metrics",
        tags=["health"],
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}},
    )
    async def metrics() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(_INDEX_PAGE.read_bytes(), media_type="text/html")


def _describe(slot: Slot, *, is_default: bool) -> ModelDescription:
    model = slot.model
    if model is None:
        return ModelDescription(
            reference=slot.reference,
            state="failed" if slot.failure else "loading",
            reason=slot.reason,
            is_default=is_default,
            verified=False,
        )
    check = model.golden_check
    return ModelDescription(
        reference=slot.reference,
        state="ready",
        name=model.artifact.name,
        version=model.artifact.version,
        is_default=is_default,
        verified=check is not None,
        class_count=len(model.artifact.class_names),
        device=str(model.engine.device),
        engine=model.engine.name,
        precision=model.engine.precision,
        streams=model.streams,
        golden_check=_describe_check(check),
    )


def _describe_candidate(candidate: Candidate, model: ServedModel) -> EngineCandidate:
    return EngineCandidate(
        engine=candidate.engine,
        chosen=candidate.engine == model.engine.name,
        images_per_s=candidate.images_per_s and round(candidate.images_per_s, 1),
        golden_check=_describe_check(candidate.golden_check),
        rejected_because=candidate.rejected_because,
    )


def _describe_check(check: GoldenCheck | None) -> GoldenCheckDescription | None:
    if check is None:
        return None
    return GoldenCheckDescription(
        example_count=check.example_count, max_abs_deviation=check.max_abs_deviation, bound=check.bound
    )
