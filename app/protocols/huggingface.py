"""Hugging Face's inference interface for image classification, at the root of the service.

the image's bytes, or {"inputs": base64, "parameters": {"top_k": 5}} -> [{"label", "score"}]

https://huggingface.co/docs/inference-providers/tasks/image-classification
"""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI, Request, Response

from app.api.answering import Image
from app.api.bodies.uploads import Upload, read_image
from app.errors import InvalidRequestError
from app.inference.pipeline import Classification
from app.models.served_model import ServedModel
from app.protocols.base64_images import decoded_texts
from app.protocols.classifying import TOP, add_classifying_route, best, classify_all, json_response
from app.protocols.documents import IMAGE_OR_JSON, PREDICTION_CODES, answer_of, documented_errors
from app.protocols.error_shapes import ERROR_SHAPE
from app.protocols.json_bodies import as_object, looks_like_json, parse_json
from app.protocols.parameters import whole_number_of
from app.serving.service import Service

_TAG: Final = "huggingface"


def labels_and_scores(classification: Classification, model: ServedModel, count: int = TOP) -> list[dict[str, Any]]:
    """Returns the most probable classes as Hugging Face writes them, the best first."""
    return [{"label": name, "score": probability} for _, name, probability in best(classification, model, count)]


def add_huggingface_routes(app: FastAPI, service: Service) -> None:
    """Adds Hugging Face's route to an application.

    Args:
        app: the application.
        service: the service that classifies.
    """

    async def predict(request: Request) -> Response:
        """The most probable classes of an image, with the default model."""
        model, count = service.registry.get(), TOP

        async def read(upload: Upload) -> list[Image]:
            nonlocal count
            body = await read_image(request, upload)
            if not looks_like_json(body):
                return [body]
            value = as_object(await parse_json(body, upload))
            parameters = value.get("parameters")
            if not isinstance(parameters, dict | None):
                raise InvalidRequestError("`parameters` must be a JSON object.")
            count = whole_number_of(parameters or {}, "top_k", least=1) or TOP
            if not isinstance(value.get("inputs"), str):
                raise InvalidRequestError("`inputs` must be the image as a base64 text.")
            return [*await decoded_texts([value["inputs"]], upload)]

        [answer] = await classify_all(service, request, model, read)
        return json_response(labels_and_scores(answer, model, count))

    scores = {"label": {"type": "string"}, "score": {"type": "number"}}
    add_classifying_route(
        app,
        "/",
        predict,
        tag=_TAG,
        summary="Classify an image, as Hugging Face does",
        documented=IMAGE_OR_JSON,
        responses=answer_of({"type": "array", "items": {"type": "object", "properties": scores}})
        | documented_errors(ERROR_SHAPE, *PREDICTION_CODES),
    )
