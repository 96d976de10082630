"""How errors look on the paths of each protocol: which shape where is decided here, once.

method, path -> TorchServe's, `{"error"}`, or the service's own problem+json
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from app.api.problems import PROBLEM_SHAPE, ErrorShape, ErrorShapes
from app.api.schemas import ProblemDetails
from app.protocols.json_bodies import JSON, written

_Paths = dict[str, tuple[str, ...]]

_TORCHSERVE_TYPES: Final = {
    "unknown_model": "ModelNotFoundException",
    "unknown_version": "ModelVersionNotFoundException",
    "not_found": "ResourceNotFoundException",
    "method_not_allowed": "MethodNotAllowedException",
    "conflict": "ConflictStatusException",
    "model_rejected": "ConflictStatusException",
    "unauthorized": "InvalidKeyException",
    "forbidden": "InvalidKeyException",
    "request_too_slow": "RequestTimeoutException",
    "deadline_exceeded": "RequestTimeoutException",
    "not_supported": "NotImplementedException",
    "overloaded": "ServiceUnavailableException",
    "not_ready": "ServiceUnavailableException",
    "draining": "ServiceUnavailableException",
    "memory_budget": "ServiceUnavailableException",
    "internal": "InternalServerException",
}
# Which protocol, if it is switched on, has the paths below these.
_TORCHSERVE_PATHS: Final[_Paths] = {"torchserve": ("/predictions", "/explanations")}
_ERROR_PATHS: Final[_Paths] = {"oip": ("/v2",), "kserve": ("/v1",)}


def _torchserve(problem: ProblemDetails) -> str:
    kind = _TORCHSERVE_TYPES.get(problem.code, "BadRequestException")
    return written({"code": problem.status, "type": kind, "message": problem.detail}).decode()


def _error(problem: ProblemDetails) -> str:
    return written({"error": problem.detail, "code": problem.code, "request_id": problem.request_id}).decode()


TORCHSERVE_SHAPE: Final = ErrorShape(JSON, _torchserve)
"""TorchServe's: `code` is the HTTP status, `type` the name of an exception, `message` what went wrong."""
ERROR_SHAPE: Final = ErrorShape(JSON, _error)
"""That of Open Inference Protocol, KServe, Vertex AI and Hugging Face, whose clients read `error`."""


def error_shapes(protocols: Collection[str], vertex_paths: Iterable[str]) -> ErrorShapes:
    """Returns what tells the shape of errors for a method and a path.

    Args:
        protocols: the protocols that are switched on.
        vertex_paths: the paths that Vertex AI has asked for, beside those of the service.
    """
    torchserve = _below(_TORCHSERVE_PATHS, protocols)
    with_error = _below(_ERROR_PATHS, protocols)
    exact = {*vertex_paths, *(("/",) if "huggingface" in protocols else ())}

    def shape_of(method: str, path: str) -> ErrorShape:
        if path.startswith(torchserve):
            return TORCHSERVE_SHAPE
        if path.startswith(with_error) or (path in exact and (method, path) != ("GET", "/")):
            return ERROR_SHAPE
        return PROBLEM_SHAPE

    return shape_of


def _below(paths: _Paths, protocols: Collection[str]) -> tuple[str, ...]:
    return tuple(path for protocol in paths if protocol in protocols for path in paths[protocol])
