"""Classifies the images of a request, and shapes the results as HTTP clients see them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from app.api.large_answers import FEW_PREDICTIONS
from app.api.problems import problem_details
from app.api.schemas import ClassProbability, FailedImage, ImageDescription, ImagePrediction
from app.errors import ImageError, PredictorError
from app.inference.pipeline import Classification
from app.models.served_model import ServedModel
from app.serving.service import Service

logger = logging.getLogger(__name__)


@dataclass
class Timings:
    """How long a request spent in each step; of several images, the slowest counts in each step.

    Attributes:
        decode_s: seconds of decoding and resizing; None before an image has been classified.
        queue_s: seconds of waiting for a stream; None before an image has been classified.
        inference_s: seconds of computing the batch; None before an image has been classified.
    """

    decode_s: float | None = None
    queue_s: float | None = None
    inference_s: float | None = None

    def include(self, classification: Classification) -> None:
        """Takes the times of one more image into account."""
        self.decode_s = max(self.decode_s or 0.0, classification.decode_s)
        self.queue_s = max(self.queue_s or 0.0, classification.queue_s)
        self.inference_s = max(self.inference_s or 0.0, classification.inference_s)


async def classify(
    service: Service, model: ServedModel, encoded: bytearray, *, top_k: int, deadline: float, timings: Timings
) -> ImagePrediction:
    """Classifies one image and counts it in the model's metrics.

    Args:
        service: the service that the request came to.
        model: the model that classifies.
        encoded: the image's file, as it was uploaded.
        top_k: how many classes to return.
        deadline: when the request's time is up, on the clock of `time.monotonic()`.
        timings: the request's timings, which get this image's.

    Raises:
        PredictorError: whatever `Pipeline.classify` raises.
    """
    artifact = model.artifact
    if service.tracing is None:
        classification = await model.pipeline.classify(encoded, deadline=deadline)
    else:
        with service.tracing.classify(artifact.name, artifact.version) as span:
            classification = await model.pipeline.classify(encoded, deadline=deadline)
            span.finish(classification)
    timings.include(classification)
    service.metrics.of_model(artifact.name, artifact.version).count_image(classification, artifact.class_names)
    if top_k <= FEW_PREDICTIONS:
        predictions = top_classes(classification, artifact.class_names, top_k)
    else:
        predictions = await asyncio.to_thread(top_classes, classification, artifact.class_names, top_k)
    return ImagePrediction(predictions=predictions, image=describe_image(classification))


async def classify_or_explain(
    service: Service,
    model: ServedModel,
    encoded: bytearray,
    *,
    request_id: str,
    top_k: int,
    deadline: float,
    timings: Timings,
) -> ImagePrediction | FailedImage:
    """Classifies one of several images; a bad image gets an error as its result, and the others their classes.

    Args:
        service: the service that the request came to.
        model: the model that classifies.
        encoded: the image's file, as it was uploaded.
        request_id: the request's id, which the error repeats.
        top_k: how many classes to return.
        deadline: when the request's time is up, on the clock of `time.monotonic()`.
        timings: the request's timings, which get this image's.

    Raises:
        PredictorError: an error that concerns the request or the service, and so all images.
    """
    try:
        return await classify(service, model, encoded, top_k=top_k, deadline=deadline, timings=timings)
    except ImageError as error:
        return FailedImage(error=problem_details(error.code, error.detail, request_id))
    except PredictorError:  # it concerns the request or the service, and so all images
        raise
    except Exception:
        logger.exception("An image of request %s failed.", request_id)
        detail = "The image could not be classified; the log has the reason under the request id."
        return FailedImage(error=problem_details("internal", detail, request_id))


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
    return ImageDescription(
        format=classification.format,
        width=classification.width,
        height=classification.height,
        adjustments=list(classification.adjustments),
    )
