"""What all protocols share around `app.api.answering`: all images or none, and probabilities by label.

The protocols have no room for an answer of which a part failed, so the first bad image fails its request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from fastapi import FastAPI, Request, Response

from app.api.answering import Answering, Reader, timeout_s_of
from app.api.classifying_route import ClassifyingRoute
from app.inference.pipeline import Classification
from app.models.served_model import ServedModel
from app.protocols.documents import Responses
from app.protocols.json_bodies import JSON, written
from app.serving.service import Service

TOP: Final = 5
"""How many classes an answer has where its protocol does not let the client choose."""


async def classify_all(service: Service, request: Request, model: ServedModel, read: Reader) -> list[Classification]:
    """Classifies the images of a request.

    Args:
        service: the service that the request came to.
        request: the request.
        model: the model that classifies.
        read: reads the images from the request's body.

    Raises:
        PredictorError: the request cannot be answered; see `Answering.each`.
        ClientDisconnect: the client has left.
    """
    way = Answering(service, request, model, timeout_s_of(request))
    return await way.each(read, way.classify)


def best(classification: Classification, model: ServedModel, count: int = TOP) -> list[tuple[int, str, float]]:
    """Returns the most probable classes of an image, the best first, each as id, name and probability.

    Args:
        classification: the result of the image.
        model: the model that classified it.
        count: how many classes; fewer where the model has fewer.
    """
    # A client may ask for more classes than `islice` can count.
    return list(islice(_ranked(classification, model), min(count, len(model.artifact.class_names))))


def by_label(classification: Classification, model: ServedModel, count: int = TOP) -> dict[str, float]:
    """Returns the most probable labels with their probabilities, the best first; of equal labels the more probable."""
    found: dict[str, float] = {}
    for _, name, probability in _ranked(classification, model):
        found.setdefault(name, probability)
        if len(found) == count:
            break
    return found


def _ranked(classification: Classification, model: ServedModel) -> Iterator[tuple[int, str, float]]:
    names, probabilities = model.artifact.class_names, classification.probabilities
    for class_id in classification.ranking:
        # A softmax in float32 may round to just above 1.
        yield int(class_id), names[class_id], min(round(float(probabilities[class_id]), 6), 1.0)


def json_response(value: Any, status: int = 200) -> Response:
    """Returns a response with a value as JSON."""
    return Response(written(value), status, media_type=JSON)


def add_classifying_route(
    app: FastAPI,
    path: str,
    endpoint: Callable[..., Any],
    *,
    tag: str,
    summary: str,
    methods: tuple[str, ...] = ("POST",),
    documented: dict[str, Any],
    responses: Responses,
) -> None:
    """Adds a route that classifies; see `ClassifyingRoute`.

    Args:
        app: the application.
        path: the path's template.
        endpoint: is called with the request and the parameters of the path.
        tag: the protocol, under which the OpenAPI document has it.
        summary: what it does, in a few words.
        methods: its methods.
        documented: its body in the OpenAPI document.
        responses: its answers and errors in the OpenAPI document.
    """
    for method in methods:
        app.router.add_api_route(
            path,
            endpoint,
            route_class_override=ClassifyingRoute,
            methods=[method],
            summary=summary,
            tags=[tag],
            operation_id=f"{tag}_{method.lower()}_{path.strip('/')}",
            responses=responses,
            openapi_extra={"requestBody": documented},
            response_class=Response,
        )
