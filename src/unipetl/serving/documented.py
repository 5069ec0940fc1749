"""The OpenAPI document: FastAPI's own, with this server's limits and the shape of every error."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from unipetl.serving.limits import Limits
from unipetl.serving.problems import MEDIA_TYPE
from unipetl.serving.wire import Problem

_REFERENCE = "#/components/schemas/"
_WHEN = {
    400: "The body is no text in UTF-8.",
    403: "The server was started without --allow-load, or the path is not in that folder.",
    404: "There is no attachment of that name.",
    408: "The body came too slowly.",
    409: "The attachment cannot do this, or the name is taken.",
    413: "The body, an input, their number or a setting is larger than this server takes.",
    422: "The request is not understood.",
    500: "The input could not be computed.",
    503: "The queue is full, or the server is stopping; Retry-After says when to try again.",
    504: "The answer took longer than this server's timeout.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return how an endpoint's errors are documented."""
    content = {MEDIA_TYPE: {"schema": {"$ref": f"{_REFERENCE}Problem"}}}
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({400, *statuses}):
        found[status] = {"description": f"{HTTPStatus(status).phrase}. {_WHEN[status]}", "content": content}
    for status in (503,):
        if status in found:
            seconds = {"schema": {"type": "integer"}, "description": "Seconds."}
            found[status] = {**found[status], "headers": {"Retry-After": seconds}}
    return found


def document(app: FastAPI, limits: Limits) -> None:
    """Let ``app`` describe itself with its limits."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            parts = Problem.model_json_schema(ref_template=f"{_REFERENCE}{{model}}")
            schemas |= parts.pop("$defs", {}) | {"Problem": parts}
            _limit(schemas, limits)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _limit(schemas: dict[str, Any], limits: Limits) -> None:
    for name in ("ClassifyRequest", "GenerateRequest", "EmbedRequest"):
        one, several = schemas[name]["properties"]["inputs"]["oneOf"]
        one["maxLength"] = several["items"]["maxLength"] = limits.max_characters
        several["maxItems"] = limits.max_inputs
    written = schemas["GenerateRequest"]["properties"]
    for field, most in (("max_new_tokens", limits.max_new_tokens), ("num_beams", limits.max_beams)):
        written[field]["anyOf"][0]["maximum"] = most
