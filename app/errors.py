"""The exceptions of the service, as one tree: every error that a user can meet is a `PredictorError`.

Nothing here knows HTTP, so that `training` and the command line share the same errors. `app/api/problems.py` turns them
into `application/problem+json` by their codes.
"""

from __future__ import annotations

from typing import ClassVar


class PredictorError(Exception):
    """Base of every error that a user can meet.

    Attributes:
        code: the machine-readable name, stable across releases.
        detail: one sentence for a person: what is wrong and, where possible, the way out.
        retry_after_s: seconds after which the same request may succeed; None if it will not, or nobody knows.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class ImageError(PredictorError):
    """The bytes sent cannot be classified."""


class EmptyBodyError(ImageError):
    """Nothing was sent."""

    code = "empty_body"


class CorruptImageError(ImageError):
    """The image has a known format, and cannot be decoded or is cut short."""

    code = "corrupt_image"


class UnsupportedFormatError(ImageError):
    """The bytes are no image, or an image of a format that is switched off."""

    code = "unsupported_format"


class UnsupportedEncodingError(PredictorError):
    """The body is compressed in a way that is not decoded."""

    code = "unsupported_encoding"


class TooManyPixelsError(ImageError):
    """The image's header announces more pixels than the limit allows."""

    code = "too_many_pixels"


class TooMuchMemoryError(ImageError):
    """Decoding the image would take more memory than the limit allows, by an estimate from its header."""

    code = "too_much_memory"


class TooMuchWorkError(ImageError):
    """Decoding the image takes more time than the limit allows."""

    code = "too_much_work"


class BodyTooLargeError(PredictorError):
    """The body has more bytes than the limit allows; they are counted while it is read."""

    code = "body_too_large"


class AnswerTooLargeError(PredictorError):
    """The answer would have more predictions than the limit allows."""

    code = "answer_too_large"


class MissingFileError(PredictorError):
    """The body is multipart and has no usable file part."""

    code = "missing_file"


class RequestTooSlowError(PredictorError):
    """The request came more slowly than the limit allows."""

    code = "request_too_slow"


class InvalidRequestError(PredictorError):
    """The body is not of the form that its protocol wants."""

    code = "invalid_request"


class InvalidParameterError(PredictorError):
    """A parameter is out of its range or of the wrong type."""

    code = "invalid_parameter"


class UnauthorizedError(PredictorError):
    """The request needs a key, and has none or one that is not known."""

    code = "unauthorized"


class ForbiddenError(PredictorError):
    """The key is known, and does not open what was asked for."""

    code = "forbidden"


class UnknownModelError(PredictorError):
    """There is no model of that name or version."""

    code = "unknown_model"


class UnknownVersionError(UnknownModelError):
    """There is a model of that name, and no such version of it serves; raised for protocols that tell the two apart."""

    code = "unknown_version"


class NotSupportedError(PredictorError):
    """A protocol has this, and this service does not do it."""

    code = "not_supported"


class ConflictError(PredictorError):
    """What was asked for does not go together with what there is already."""

    code = "conflict"


class ArtifactError(PredictorError):
    """A published model is missing or damaged, or does not compute what its golden examples promise."""

    code = "not_ready"


class ModelRejectedError(PredictorError):
    """A version that was asked for cannot serve; the version that served before goes on serving."""

    code = "model_rejected"


class MemoryBudgetError(PredictorError):
    """With one more model, models would take more memory than they may."""

    code = "memory_budget"


class UnavailableError(PredictorError):
    """The service cannot take this request now; it may later, or another replica may."""


class NotReadyError(UnavailableError):
    """No verified model serves: it is still being loaded, or its load failed."""

    code = "not_ready"


class DrainingError(UnavailableError):
    """The service is shutting down."""

    code = "draining"


class OverloadedError(UnavailableError):
    """The queue is full."""

    code = "overloaded"


class DeadlineExceededError(PredictorError):
    """The request's time ran out before its answer was ready."""

    code = "deadline_exceeded"
