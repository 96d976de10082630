"""What can go wrong: one exception tree, and one table from its codes to HTTP.

Nothing here knows a web framework, so that `training` and the command line share the same errors;
`problems.py` turns them into `application/problem+json`, and into the OpenAPI document.
"""

from __future__ import annotations

from typing import ClassVar


class PredictorError(Exception):
    """Base of every error that a user can meet.

    Attributes:
        code: the machine-readable name, stable across releases.
        detail: one sentence for a person: what is wrong and, where possible, the way out.
        retry_after_s: seconds after which the same request may succeed, or None.
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
    """A known format that cannot be decoded or is cut short."""

    code = "corrupt_image"


class UnsupportedFormatError(ImageError):
    """Not an image, or a format that is switched off."""

    code = "unsupported_format"


class TooManyPixelsError(ImageError):
    """The header announces more pixels than the limit allows."""

    code = "too_many_pixels"


class BodyTooLargeError(PredictorError):
    """More bytes than the limit allows; counted while reading."""

    code = "body_too_large"


class MissingFileError(PredictorError):
    """A multipart body without a usable file part."""

    code = "missing_file"


class RequestTooSlowError(PredictorError):
    """The request came more slowly than the limit allows."""

    code = "request_too_slow"


class InvalidParameterError(PredictorError):
    """A parameter out of its range or of the wrong type."""

    code = "invalid_parameter"


class UnauthorizedError(PredictorError):
    """No key was sent where one is needed, or one that is not known."""

    code = "unauthorized"


class ForbiddenError(PredictorError):
    """A known key that does not open what was asked for."""

    code = "forbidden"


class UnknownModelError(PredictorError):
    """No model of that name or version."""

    code = "unknown_model"


class ArtifactError(PredictorError):
    """A published model that is missing, damaged, or does not compute what it promised."""

    code = "not_ready"


class ModelRejectedError(PredictorError):
    """A version that was to be served cannot be; what served before serves on."""

    code = "model_rejected"


class MemoryBudgetError(PredictorError):
    """Another model would take more memory than models may have."""

    code = "memory_budget"


class UnavailableError(PredictorError):
    """The service cannot take this request now; another time, or another replica, can."""


class NotReadyError(UnavailableError):
    """No verified model serves yet, or its load failed."""

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
