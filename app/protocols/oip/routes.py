"""The routes of Open Inference Protocol V2.

body -> JSON and what is behind it -> codec.py -> tensors.py -> images -> classified -> codec.py -> answer
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, Depends, FastAPI, Request, Response

from app.api import auth
from app.api.answering import Image
from app.api.bodies.uploads import Upload, read_whole
from app.errors import ForbiddenError, InvalidRequestError, UnknownModelError
from app.models.served_model import ServedModel
from app.protocols.classifying import add_classifying_route, best, classify_all, json_response
from app.protocols.documents import PREDICTION_CODES, answer_of, documented_errors
from app.protocols.error_shapes import ERROR_SHAPE
from app.protocols.json_bodies import JSON, parse_json, small_object_of
from app.protocols.oip import codec
from app.protocols.oip.descriptions import EXTENSIONS, configuration, index_entry, metadata
from app.protocols.oip.statistics import statistics
from app.protocols.oip.tensors import ImageRoom, images_of
from app.serving.service import Service

HEADER_LENGTH: Final = "inference-header-content-length"
_TAG: Final = "oip"
_MODEL: Final = "/v2/models/{name}"
_VERSION: Final = "/v2/models/{name}/versions/{version}"
_FEW_BYTES: Final = 1_000_000  # so many are taken apart in about a millisecond
_FEW_PROBABILITIES: Final = 5_000  # and so many written
_FEW_BYTES_TO_COMPRESS: Final = 64_000
_COMPRESS: Final[dict[str, Callable[[bytes, int], bytes]]] = {"gzip": gzip.compress, "deflate": zlib.compress}
_INFER_BODY: Final = {
    "required": True,
    "content": {
        "application/json": {"schema": {"type": "object"}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}


def add_oip_routes(app: FastAPI, service: Service) -> None:
    """Adds the routes of Open Inference Protocol V2 to an application.

    Args:
        app: the application.
        service: the service that classifies.
    """
    settings = service.settings

    def model_of(name: str, version: str | None = None) -> ServedModel:
        """Returns a model that serves; an unknown one is refused in Triton's words."""
        try:
            return service.registry.get(name, version)
        except UnknownModelError:
            asked = f"{name!r}" if version is None else f"{name!r} version {version}"
            raise UnknownModelError(f"Request for unknown model: {asked} is not found") from None

    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        """The probabilities of all classes, or the best as texts, for images as files, pixels or normalised input."""
        model = model_of(name, version)
        parsed: codec.InferRequest | None = None

        async def read(upload: Upload) -> list[Image]:
            nonlocal parsed
            parsed = await _parsed(request, upload)
            upload.patience = min(upload.patience, request.state.started_at + parsed.timeout_s)
            tensor, room = parsed.tensor, ImageRoom(settings.max_images_per_request, settings.image_limits.max_pixels)
            size = upload.held.count
            upload.held.add(size)  # what is made of the body takes about as much again
            if size <= _FEW_BYTES:
                return images_of(tensor, model, room)
            return await asyncio.to_thread(images_of, tensor, model, room)

        answers = await classify_all(service, request, model, read)
        assert parsed is not None
        named = model.artifact.name, model.artifact.version
        if count := parsed.output.classes:
            images = [best(each, model, count) for each in answers]
            written, raw = codec.write_classes(parsed, *named, images)
        else:
            rows = [each.probabilities for each in answers]
            write = partial(codec.write_probabilities, parsed, *named, rows)
            is_large = len(rows) * len(rows[0]) > _FEW_PROBABILITIES
            written, raw = await asyncio.to_thread(write) if is_large else write()
        return await _answer(request, written, raw, is_binary=parsed.output.is_binary)

    async def server() -> Response:
        """The service, and the extensions of the protocol that it speaks."""
        return json_response({"name": "image-predictor", "version": app.version, "extensions": list(EXTENSIONS)})

    async def live() -> Response:
        """Whether the process is alive; 503 when only a restart helps."""
        service.check_live()
        return json_response({"live": True})

    async def ready() -> Response:
        """Whether requests may be sent here; else 503."""
        service.check_ready()
        return json_response({"ready": True})

    async def models() -> Response:
        """The names of the models that serve."""
        return json_response({"models": [model.artifact.name for model in service.registry.served]})

    async def all_statistics() -> Response:
        """What has been counted of all models."""
        return json_response(statistics(service.registry.served, service.metrics))

    async def model_statistics(request: Request) -> Response:
        """What has been counted of one model."""
        return json_response(statistics([model_of(**request.path_params)], service.metrics))

    async def model_ready(request: Request) -> Response:
        """Whether the model serves; else 503."""
        return json_response({"name": model_of(**request.path_params).artifact.name, "ready": True})

    async def model_metadata(request: Request) -> Response:
        """The model's input and output."""
        return json_response(metadata(model_of(**request.path_params)))

    async def model_config(request: Request) -> Response:
        """The model's configuration, as Triton's clients read it."""
        model = model_of(**request.path_params)
        return json_response(configuration(model, max_images=settings.max_images_per_request))

    async def index(request: Request) -> Response:
        """The models that this service was asked to serve, and the state of each."""
        ready_only = (await small_object_of(request, service)).get("ready", False)
        if not isinstance(ready_only, bool):
            raise InvalidRequestError("`ready` must be true or false.")
        deployments = service.registry.deployments
        return json_response([index_entry(each) for each in deployments if each.model or not ready_only])

    def get(path: str, endpoint: Any, summary: str, *codes: str, is_open: bool = False) -> None:
        app.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            tags=[_TAG],
            summary=summary,
            operation_id=f"{_TAG}_get_{path.strip('/')}",
            response_class=Response,
            responses=answer_of({"type": "object"}) | documented_errors(ERROR_SHAPE, *codes),
            openapi_extra={"parameters": _path_parameters(path)},
        )
        if is_open:
            app.state.auth.open_patterns.append(app.routes[-1].path_regex)  # type: ignore[attr-defined]

    get("/v2", server, "What this server is")
    get("/v2/health/live", live, "Is the process alive?", "not_ready", is_open=True)
    get("/v2/health/ready", ready, "May requests be sent here?", "not_ready", "draining", is_open=True)
    get("/v2/models", models, "List the models")
    get("/v2/models/stats", all_statistics, "Statistics of all models")
    for model_path in (_MODEL, _VERSION):
        get(f"{model_path}/ready", model_ready, "Does a model serve?", "unknown_model", "not_ready", is_open=True)
        get(f"{model_path}/config", model_config, "A model's configuration", "unknown_model", "not_ready")
        get(f"{model_path}/stats", model_statistics, "A model's statistics", "unknown_model", "not_ready")
        get(model_path, model_metadata, "A model's input and output", "unknown_model", "not_ready")
        add_classifying_route(
            app,
            f"{model_path}/infer",
            infer,
            tag=_TAG,
            summary="Classify the images of a tensor",
            documented=_INFER_BODY,
            responses=answer_of({"type": "object"}) | documented_errors(ERROR_SHAPE, *PREDICTION_CODES),
        )
    app.add_api_route(
        "/v2/repository/index",
        index,
        methods=["POST"],
        tags=[_TAG],
        summary="The models and their states",
        response_class=Response,
        responses=answer_of({"type": "array"}) | documented_errors(ERROR_SHAPE, "invalid_request", "body_too_large"),
    )
    _add_repository_changes(app, service)


def _add_repository_changes(app: FastAPI, service: Service) -> None:
    """Adds the routes that load and unload; without admin keys they say that they need one."""
    router = APIRouter(prefix="/v2/repository/models/{name}", tags=[_TAG], dependencies=[Depends(auth.require_admin)])
    codes = ("unknown_model", "model_rejected", "memory_budget", "not_ready", "forbidden", "invalid_parameter")
    errors: Any = documented_errors(ERROR_SHAPE, *codes)

    async def load(name: str) -> Response:
        """Loads a model of the store, and answers when it serves."""
        await service.watcher.load(name)
        return json_response({})

    async def unload(name: str) -> Response:
        """Answers the requests that the model still has, then frees its memory."""
        await service.watcher.unload(name)
        return json_response({})

    async def refused(name: str) -> Response:
        """Refuses: nobody may change what is served."""
        raise ForbiddenError(f"Model {name!r} cannot be loaded or unloaded: this service has no admin keys.")

    if app.state.auth.has_admins:
        router.add_api_route("/load", load, methods=["POST"], summary="Serve a model of the store", responses=errors)
        router.add_api_route("/unload", unload, methods=["POST"], summary="Stop serving a model", responses=errors)
        auth.add_admin_routes(app, router)
        return
    for change in ("load", "unload"):
        app.add_api_route(
            f"/v2/repository/models/{{name}}/{change}", refused, methods=["POST"], include_in_schema=False
        )


async def _parsed(request: Request, upload: Upload) -> codec.InferRequest:
    """Returns the request that a body means; its JSON is as long as a header says, or the whole body."""
    body = await read_whole(request, upload)
    declared = request.headers.get(HEADER_LENGTH)
    if declared is None:
        return codec.read_request(await parse_json(body, upload), memoryview(b""))
    if not (declared.isascii() and declared.isdigit() and len(declared) <= 20 and int(declared) <= len(body)):
        raise InvalidRequestError(
            f"Inference-Header-Content-Length must be the length of the JSON in bytes, at most {len(body):,}; "
            f"it is {declared[:20]!r}."
        )
    length = int(declared)
    if length == 0:
        return codec.one_file(body)
    whole = memoryview(body)
    return codec.read_request(await parse_json(whole[:length], upload), whole[length:])


async def _answer(request: Request, written: bytes, raw: bytes, *, is_binary: bool) -> Response:
    """Returns the response, compressed if the client takes that."""
    headers = {HEADER_LENGTH: str(len(written))} if is_binary else {}
    body, media_type = written + raw, "application/octet-stream" if is_binary else JSON
    accepted = {_coding(each) for each in request.headers.get("accept-encoding", "").lower().split(",")}
    coding = next((each for each in _COMPRESS if each in accepted), None)
    if coding:
        compress = partial(_COMPRESS[coding], body, 1)
        body = await asyncio.to_thread(compress) if len(body) > _FEW_BYTES_TO_COMPRESS else compress()
        headers["content-encoding"] = coding
    headers["vary"] = "accept-encoding"
    return Response(body, headers=headers, media_type=media_type)


def _coding(accepted: str) -> str:
    """Returns the coding of one part of `Accept-Encoding`; nothing if its weight is 0."""
    coding, _, weight = accepted.replace(" ", "").partition(";q=")
    return "" if weight.rstrip("0") in {"0", "0.", ""} and weight else coding


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [name for name in ("name", "version") if f"{{{name}}}" in path]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
