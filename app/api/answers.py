"""The answers of the native routes: an image's classes, and many of them bounded, built elsewhere, sent in pieces.

images x classes of a request -> too many? -> 413
results -> the JSON of each, in a thread -> counted with the bytes of bodies -> one piece after another
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain, repeat
from operator import add
from typing import Final

from fastapi import Response
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from app.api.schemas import BatchPrediction, ClassProbability, FailedImage, ImageDescription, ImagePrediction
from app.errors import AnswerTooLargeError
from app.inference.pipeline import Classification
from app.serving.admission import Admission

MAX_PREDICTIONS: Final = 100_000
"""The most predictions in the answer to a request with several images; about 8 MB of JSON."""

FEW_PREDICTIONS: Final = 1_000
"""So many are built and written in about a millisecond: the event loop does it at once."""

_MEDIA_TYPE: Final = "application/json"


def check_answer_size(images: int, top_k: int) -> None:
    """Refuses a request whose answer would be too large, before anything is computed.

    Args:
        images: the number of images.
        top_k: how many classes are asked for, of each image.

    Raises:
        AnswerTooLargeError: there would be more than `MAX_PREDICTIONS`.
    """
    if images * top_k > MAX_PREDICTIONS:
        raise AnswerTooLargeError(
            f"{images} images with {top_k:,} classes each are {images * top_k:,} predictions; the limit is "
            f"{MAX_PREDICTIONS:,}. Ask for fewer classes (top_k), or send fewer images at once."
        )


async def answer_of(prediction: BaseModel, *, predictions: int, admission: Admission) -> Response:
    """Returns the response to a request with one image.

    Args:
        prediction: the answer.
        predictions: how many classes it has.
        admission: counts the bytes of a large answer.
    """
    if predictions <= FEW_PREDICTIONS:
        return Response(prediction.model_dump_json(), media_type=_MEDIA_TYPE)
    return PiecesResponse([await asyncio.to_thread(_encoded, prediction)], admission)


async def answer_of_batch(
    model: str,
    version: str,
    results: Sequence[ImagePrediction | FailedImage],
    *,
    predictions: int,
    admission: Admission,
) -> Response:
    """Returns the response to a request with several images.

    Args:
        model: the model's name.
        version: the model's version.
        results: what came of each image.
        predictions: how many classes all of them have together, at most.
        admission: counts the bytes of a large answer.
    """
    if predictions <= FEW_PREDICTIONS:
        whole = BatchPrediction(model=model, version=version, results=list(results))
        return Response(whole.model_dump_json(), media_type=_MEDIA_TYPE)
    empty = _encoded(BatchPrediction(model=model, version=version, results=[]))
    pieces = await asyncio.to_thread(lambda: [_encoded(result) for result in results])
    before = chain([empty.removesuffix(b"]}")], repeat(b","))
    return PiecesResponse([*map(add, before, pieces), b"]}"], admission)


async def image_prediction(classification: Classification, class_names: tuple[str, ...], top_k: int) -> ImagePrediction:
    """Returns the answer for one image; many classes are taken together off the event loop.

    Args:
        classification: the result of the image.
        class_names: the names of the model's classes.
        top_k: how many classes to return.
    """
    if top_k <= FEW_PREDICTIONS:
        predictions = top_classes(classification, class_names, top_k)
    else:
        predictions = await asyncio.to_thread(top_classes, classification, class_names, top_k)
    return ImagePrediction(predictions=predictions, image=describe_image(classification))


def top_classes(classification: Classification, class_names: tuple[str, ...], top_k: int) -> list[ClassProbability]:
    """Returns the `top_k` most probable classes, in descending order; of equal ones the lower id first."""
    probabilities = classification.probabilities
    return [
        ClassProbability(
            class_name=class_names[class_id],
            class_id=class_id,
            # Six decimals are what float32 holds; a softmax may round to just above 1.
            probability=min(round(float(probabilities[class_id]), 6), 1.0),
        )
        for class_id in classification.ranking[:top_k].tolist()
    ]


def describe_image(classification: Classification) -> ImageDescription:
    """Returns what the answer tells about the image itself: format, size, and what was adjusted."""
    assert classification.format != "pixels"  # the native routes take files
    return ImageDescription(
        format=classification.format,
        width=classification.width,
        height=classification.height,
        adjustments=list(classification.adjustments),
    )


class PiecesResponse(Response):
    """A JSON response that is sent piece by piece, so that little waits for a client that reads slowly.

    Args:
        pieces: the body.
        admission: counts the bytes while they are sent.
    """

    media_type = _MEDIA_TYPE

    def __init__(self, pieces: list[bytes], admission: Admission) -> None:
        self._pieces = pieces
        self._admission = admission
        self._length = sum(map(len, pieces))
        super().__init__(headers={"Content-Length": str(self._length)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the response.

        Raises:
            OverloadedError: there are too many bytes of bodies and answers in memory.
        """
        with self._admission.hold_bytes() as held:
            held.add(self._length)
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _encoded(answer: BaseModel) -> bytes:
    return answer.model_dump_json().encode()
