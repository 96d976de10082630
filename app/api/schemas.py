"""The JSON of the answers, as pydantic models; the OpenAPI document is made from them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.images.colour import Adjustment
from app.images.limits import ImageFormat
from app.store.manifest import Manifest


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class ClassProbability(_Schema):
    """One class and its probability."""

    class_name: str = Field(examples=["tiger cat"])
    class_id: int = Field(ge=0, examples=[282])
    probability: float = Field(ge=0, le=1, examples=[0.5561])


class ImageDescription(_Schema):
    """What the image was recognised as, and what was done to it before classification."""

    format: ImageFormat
    width: int = Field(ge=1, description="In pixels, upright", examples=[720])
    height: int = Field(ge=1, description="In pixels, upright", examples=[720])
    adjustments: list[Adjustment]


class ImagePrediction(_Schema):
    """The prediction for one image of several."""

    predictions: list[ClassProbability] = Field(description="The most probable classes, in descending order")
    image: ImageDescription


class Prediction(_Schema):
    """The answer to a request with one image."""

    model: str = Field(examples=["imagenet"])
    version: str = Field(examples=["1"])
    predictions: list[ClassProbability] = Field(description="The most probable classes, in descending order")
    image: ImageDescription


class ProblemDetails(_Schema):
    """An error in the form of RFC 9457 (`application/problem+json`)."""

    type: str = Field(examples=["urn:image-predictor:problem:corrupt_image"])
    title: str = Field(examples=["The image cannot be decoded"])
    status: int = Field(examples=[400])
    detail: str = Field(examples=["The JPEG image cannot be decoded: image file is truncated."])
    code: str = Field(examples=["corrupt_image"])
    request_id: str


class FailedImage(_Schema):
    """Why one image of several has no prediction."""

    error: ProblemDetails


class BatchPrediction(_Schema):
    """The answer to a request with several images: a result for each, in the order in which they were sent."""

    model: str = Field(examples=["imagenet"])
    version: str = Field(examples=["1"])
    results: list[ImagePrediction | FailedImage]


class GoldenCheckDescription(_Schema):
    """How close this service comes to the probabilities that the artifact's golden examples promise."""

    passed: Literal[True] = True
    example_count: int
    max_abs_deviation: float
    bound: float


class EngineCandidate(_Schema):
    """An engine that was considered when the model was loaded."""

    engine: str = Field(examples=["openvino"])
    chosen: bool
    golden_check: GoldenCheckDescription | None = None
    rejected_because: str | None = Field(default=None, description="Why it was left out")


class ModelDescription(_Schema):
    """A model that was asked for, and how it is served."""

    reference: str = Field(description="The model as it was asked for", examples=["imagenet"])
    state: Literal["loading", "ready", "failed"]
    reason: str | None = Field(default=None, description="Why it is not ready")
    name: str | None = None
    version: str | None = None
    is_default: bool = Field(description="Whether it answers /predict")
    verified: bool = Field(description="Whether it passed a golden check; a plain TorchScript file has none")
    class_count: int | None = None
    device: str | None = None
    engine: str | None = None
    precision: str | None = None
    streams: int | None = Field(default=None, description="Batches computed at once")
    threads_per_stream: int | None = Field(default=None, description="CPU threads that compute one batch")
    lone_threads: int | None = Field(
        default=None, description="CPU threads that compute a batch when nothing else is computed"
    )
    golden_check: GoldenCheckDescription | None = None
    rejected_version: str | None = Field(
        default=None, description="The version that should serve according to the store, but cannot"
    )
    rejected_because: str | None = Field(default=None, description="Why what the store wants served does not serve")


class ModelDetails(ModelDescription):
    """Everything that is known about a model."""

    class_names: list[str] | None = None
    engine_candidates: list[EngineCandidate] | None = None
    manifest: Manifest | None = None


class ModelList(_Schema):
    """The models of this service, the default one first."""

    models: list[ModelDescription]


class Health(_Schema):
    """The state of the service."""

    status: Literal["live", "ready", "started"]
