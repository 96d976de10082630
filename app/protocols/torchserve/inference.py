"""TorchServe's inference interface: what its clients ask on port 8080, with its answers and its errors' words.

raw bytes, a form, base64 text, or its JSON envelope -> images -> `{label: probability}` of the five best classes

https://docs.pytorch.org/serve/inference_api.html
"""

from __future__ import annotations

import re
from typing import Final

from fastapi import FastAPI, Request, Response

from app.api.answering import Image
from app.api.bodies.uploads import Upload, read_image
from app.errors import (
    InvalidRequestError,
    NotSupportedError,
    UnknownModelError,
    UnknownVersionError,
)
from app.models.served_model import ServedModel
from app.protocols.base64_images import decoded_instances, decoded_texts
from app.protocols.classifying import add_classifying_route, by_label, classify_all, json_response
from app.protocols.documents import IMAGE_OR_JSON, PREDICTION_CODES, answer_of, documented_errors
from app.protocols.error_shapes import TORCHSERVE_SHAPE
from app.protocols.json_bodies import looks_like_json, parse_json
from app.serving.service import Service

FORM_FIELDS: Final = ("data", "body", "file", "image")
"""The fields of a form whose file is the image."""
_TAG: Final = "torchserve"
_WHOLE_NUMBER: Final = re.compile(r"(\d+)\.0")
_BASE64_TEXT: Final = re.compile(rb"\s*(data:[^,]{0,200};base64,)?[A-Za-z0-9+/\s]*={0,2}\s*", re.IGNORECASE)


def version_of(text: str) -> str:
    """Returns the version that a TorchServe client means: `1.0` is 1."""
    whole = _WHOLE_NUMBER.fullmatch(text)
    return whole[1] if whole else text


def model_of(service: Service, name: str | None, version: str | None = None) -> ServedModel:
    """Returns a model that serves.

    Args:
        service: the service.
        name: the model's name; None for the default model.
        version: the version as the client wrote it; None for any.

    Raises:
        UnknownModelError: there is none of that name, in TorchServe's words.
        UnknownVersionError: it has no such version, in TorchServe's words.
        NotReadyError: it is being loaded, or could not be loaded.
    """
    try:
        return service.registry.get(name, None if version is None else version_of(version))
    except UnknownModelError:
        if version is not None and any(each.name == name for each in service.registry.deployments):
            raise UnknownVersionError(f"Model version: {version} does not exist for model: {name}") from None
        raise UnknownModelError(f"Model not found: {name}") from None


def add_torchserve_routes(app: FastAPI, service: Service) -> None:
    """Adds the routes of TorchServe's inference interface to an application.

    Args:
        app: the application.
        service: the service that classifies.
    """

    async def predict(request: Request, name: str, version: str | None = None) -> Response:
        """The five most probable classes. The image is the body, a form's field `data`, or base64 in JSON."""
        model, is_envelope = model_of(service, name, version), False

        async def read(upload: Upload) -> list[Image]:
            nonlocal is_envelope
            body = await read_image(request, upload, FORM_FIELDS)
            content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if content_type == "text/plain" and _BASE64_TEXT.fullmatch(body):
                return [*await decoded_texts([body.decode("ascii")], upload)]
            if not looks_like_json(body):
                return [body]
            value = await parse_json(body, upload)
            if isinstance(value, str):
                return [*await decoded_texts([value], upload)]
            if isinstance(value, dict) and "instances" in value:
                is_envelope = True
                most = service.settings.max_images_per_request
                return [*await decoded_instances(value["instances"], upload, max_images=most)]
            raise InvalidRequestError("JSON must be the image as a base64 text, or an object with a list `instances`.")

        answers = [by_label(each, model) for each in await classify_all(service, request, model, read)]
        return json_response({"predictions": answers} if is_envelope else answers[0])

    async def explain(request: Request, name: str, version: str | None = None) -> Response:
        """Explanations are not made here: 501."""
        model_of(service, name, version)
        raise NotSupportedError("This service does not explain predictions.")

    probabilities = {"type": "object", "additionalProperties": {"type": "number"}}
    errors = documented_errors(TORCHSERVE_SHAPE, "unknown_version", *PREDICTION_CODES)
    for path in ("/predictions/{name}", "/predictions/{name}/{version}"):
        add_classifying_route(
            app,
            path,
            predict,
            tag=_TAG,
            summary="Classify an image, as TorchServe does",
            methods=("POST", "PUT"),
            documented=IMAGE_OR_JSON,
            responses=answer_of(probabilities, "The five best labels and their probabilities") | errors,
        )
    not_done = documented_errors(TORCHSERVE_SHAPE, "unknown_version", "unknown_model", "not_ready", "not_supported")
    for path in ("/explanations/{name}", "/explanations/{name}/{version}"):
        summary = "Explain a prediction: not done here"
        add_classifying_route(
            app, path, explain, tag=_TAG, summary=summary, documented=IMAGE_OR_JSON, responses=not_done
        )
