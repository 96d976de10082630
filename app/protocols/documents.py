"""What the OpenAPI document says about the routes of protocols: their bodies, and their errors in their own shapes."""

from __future__ import annotations

import json
from typing import Any, Final

from app.api.problems import MEDIA_TYPE, PROBLEM_SHAPE, PROBLEMS, ErrorShape, problem_details

Responses = dict[int | str, dict[str, Any]]

_BINARY: Final = {"type": "string", "format": "binary", "minLength": 1}
_IMAGE: Final = {"*/*": {"schema": _BINARY}}
_FORM: Final = {"schema": {"type": "object", "properties": {"data": _BINARY}, "required": ["data"]}}
_OBJECT: Final = {"schema": {"type": "object"}}

IMAGE_OR_JSON: Final = {
    "required": True,
    "content": {"application/json": _OBJECT, "multipart/form-data": _FORM, **_IMAGE},
}
"""An image's bytes, a form with it, or JSON with it in base64."""
JSON_OBJECT: Final = {"required": True, "content": {"application/json": _OBJECT}}
"""A JSON object, whatever its content type says."""

_ERROR_SCHEMA: Final = {
    "type": "object",
    "properties": {"error": {"type": "string"}, "code": {"type": "string"}, "request_id": {"type": "string"}},
    "required": ["error"],
}
_TORCHSERVE_SCHEMA: Final = {
    "type": "object",
    "properties": {"code": {"type": "integer"}, "type": {"type": "string"}, "message": {"type": "string"}},
    "required": ["code", "type", "message"],
}
PREDICTION_CODES: Final = (
    "invalid_request", "empty_body", "corrupt_image", "unknown_model", "request_too_slow", "body_too_large",
    "too_many_pixels", "too_much_memory", "too_much_work", "unsupported_format", "unsupported_encoding",
    "missing_file", "invalid_parameter", "overloaded", "not_ready", "draining", "deadline_exceeded", "internal",
)  # fmt: skip
"""The codes of all errors that a route which classifies may answer."""


def documented_errors(shape: ErrorShape, *codes: str) -> Responses:
    """Returns the OpenAPI `responses` of a route that may answer with these codes, in a protocol's shape."""
    documented: Responses = {}
    for code in codes:
        status, title = PROBLEMS[code]
        example = json.loads(shape.write(problem_details(code, f"{title}.", "3f1c9a2b7d5e4f60")))
        media_type = MEDIA_TYPE if shape is PROBLEM_SHAPE else shape.media_type
        content = {media_type: {"schema": _schema_of(example), "examples": {}}}
        response = documented.setdefault(status, {"description": "", "content": content})
        response["description"] = "; ".join(filter(None, (response["description"], f"`{code}`: {title}")))
        response["content"][media_type]["examples"][code] = {"value": example}
    return documented


def answer_of(schema: dict[str, Any], description: str = "The answer") -> Responses:
    """Returns the OpenAPI `responses` of a success with JSON."""
    return {200: {"description": description, "content": {"application/json": {"schema": schema}}}}


def _schema_of(example: dict[str, Any]) -> dict[str, Any]:
    if "message" in example:
        return _TORCHSERVE_SCHEMA
    return _ERROR_SCHEMA if "error" in example else {"$ref": "#/components/schemas/ProblemDetails"}
