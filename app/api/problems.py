"""Answers errors as `application/problem+json` (RFC 9457), from one table that also documents them.

PredictorError -> its code -> `PROBLEMS` -> status and title -> the answer, and the OpenAPI document
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import Scope

from app.api.bodies.content_encoding import ACCEPTED
from app.api.schemas import ProblemDetails
from app.errors import PredictorError


class Problem(NamedTuple):
    """How one error code looks over HTTP.

    Attributes:
        status: the status code of the answer.
        title: the error in a few words, the same for every request.
    """

    status: int
    title: str


PROBLEMS: dict[str, Problem] = {
    "malformed_request": Problem(400, "Not an HTTP request"),
    "invalid_request": Problem(400, "Not what the protocol expects"),
    "empty_body": Problem(400, "No image was sent"),
    "corrupt_image": Problem(400, "The image cannot be decoded"),
    "unauthorized": Problem(401, "A key is needed"),
    "forbidden": Problem(403, "The key does not open this"),
    "unknown_model": Problem(404, "No such model"),
    "unknown_version": Problem(404, "No such version of the model"),
    "not_found": Problem(404, "No such page"),
    "method_not_allowed": Problem(405, "Method not allowed here"),
    "request_too_slow": Problem(408, "The request came too slowly"),
    "conflict": Problem(409, "Not beside what there is"),
    "model_rejected": Problem(409, "The version cannot be served"),
    "body_too_large": Problem(413, "The request body is too large"),
    "too_many_pixels": Problem(413, "The image has too many pixels"),
    "answer_too_large": Problem(413, "The answer would be too large"),
    "too_much_memory": Problem(413, "The image takes too much memory to decode"),
    "too_much_work": Problem(413, "The image takes too much time to decode"),
    "unsupported_format": Problem(415, "Not an image format that is served"),
    "unsupported_encoding": Problem(415, "Not a content encoding that is decoded"),
    "missing_file": Problem(422, "No image file in the form"),
    "invalid_parameter": Problem(422, "A parameter is not valid"),
    "head_too_large": Problem(431, "The request's headers are too large"),
    "internal": Problem(500, "Internal error"),
    "not_supported": Problem(501, "Not done here"),
    "overloaded": Problem(503, "Too many requests at once"),
    "not_ready": Problem(503, "No model is ready"),
    "draining": Problem(503, "The service is shutting down"),
    "deadline_exceeded": Problem(504, "The request took too long"),
    "memory_budget": Problem(507, "No memory is left for another model"),
}

MEDIA_TYPE = "application/problem+json"


def problem_details(code: str, detail: str, request_id: str) -> ProblemDetails:
    """Returns the body of the answer to an error.

    Args:
        code: a key of `PROBLEMS`.
        detail: what went wrong with this request, in a sentence.
        request_id: the request's id.
    """
    status, title = PROBLEMS[code]
    return ProblemDetails(
        type=f"urn:image-predictor:problem:{code}",
        title=title,
        status=status,
        detail=detail,
        code=code,
        request_id=request_id,
    )


class ErrorShape(NamedTuple):
    """How the body of an answer to an error looks, for the clients of some paths.

    Attributes:
        media_type: the content type of the body.
        write: returns the body of a problem, as JSON.
    """

    media_type: str
    write: Callable[[ProblemDetails], str]


PROBLEM_SHAPE: Final = ErrorShape(MEDIA_TYPE, ProblemDetails.model_dump_json)
"""The shape of errors on the native routes, and wherever no other has been decided."""

ErrorShapes = Callable[[str, str], ErrorShape]
"""Returns the shape of errors for a method and a path."""


def shape_for(scope: Scope) -> ErrorShape:
    """Returns the shape of errors for the request of an ASGI scope."""
    shapes: ErrorShapes = scope["app"].state.error_shapes
    return shapes(scope["method"], scope["path"])


def problem_response(
    code: str,
    detail: str,
    *,
    request_id: str,
    shape: ErrorShape = PROBLEM_SHAPE,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Returns the answer to an error.

    Args:
        code: a key of `PROBLEMS`.
        detail: what went wrong with this request, in a sentence.
        request_id: the request's id.
        shape: how its body looks.
        headers: headers beyond those of the body, or None.
    """
    problem = problem_details(code, detail, request_id)
    if problem.status == 401:  # RFC 9110, section 11.6.1: it must say which scheme of keys is wanted
        headers = {"WWW-Authenticate": 'Bearer realm="image-predictor"', **(headers or {})}
    if code == "unsupported_encoding":  # RFC 9110, section 15.5.16: it should say what is
        headers = {"Accept-Encoding": ACCEPTED, **(headers or {})}
    return Response(
        shape.write(problem),
        problem.status,
        media_type=shape.media_type,
        headers=headers,
    )


def add_exception_handlers(app: FastAPI) -> None:
    """Lets an application answer each exception that a route may raise as a problem."""

    def answer(request: Request, code: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
        request.state.error_code = code  # for the metrics
        shape, request_id = shape_for(request.scope), request.state.request_id
        return problem_response(code, detail, request_id=request_id, shape=shape, headers=headers)

    @app.exception_handler(PredictorError)
    async def predictor_error(request: Request, error: PredictorError) -> Response:
        retry_after = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
        return answer(request, error.code, error.detail, retry_after)

    @app.exception_handler(HTTPException)
    async def http_exception(request: Request, error: HTTPException) -> Response:
        place = f"{request.method} {request.url.path}"
        if error.status_code == 405:
            allowed = ", ".join(_allowed_methods(request))
            detail = f"{place}: only {allowed} may be used here. See /docs for what there is."
            return answer(request, "method_not_allowed", detail, {"Allow": allowed})
        return answer(request, "not_found", f"{place}: {error.detail}. See /docs for what there is.", error.headers)


def _allowed_methods(request: Request) -> list[str]:
    """Returns the methods of all routes on the path; Starlette's own answer names only those of the first route."""
    matching = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in matching if isinstance(route, Route) for method in route.methods or ()})


def responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Returns the OpenAPI `responses` of a route that may answer with these keys of `PROBLEMS`."""
    documented: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, title = PROBLEMS[code]
        response = documented.setdefault(
            status, {"description": "", "content": {MEDIA_TYPE: {"schema": _SCHEMA_REFERENCE, "examples": {}}}}
        )
        response["description"] = "; ".join(filter(None, (response["description"], f"`{code}`: {title}")))
        example = problem_details(code, f"{title}.", "3f1c9a2b7d5e4f60").model_dump()
        response["content"][MEDIA_TYPE]["examples"][code] = {"value": example}
        if status == 503:
            response["headers"] = {
                "Retry-After": {"description": "Seconds until it may work", "schema": {"type": "integer", "minimum": 1}}
            }
    return documented


_SCHEMA_REFERENCE = {"$ref": "#/components/schemas/ProblemDetails"}
