"""The description of the service's interface, from the types of its requests and responses."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from adrec._version import __version__
from adrec.serve import schema

ONE = {"user": "u001", "history": ["sku-010"], "k": 5}
STRUCTS = (
    schema.RecommendRequest,
    schema.RecommendResponse,
    schema.SimilarRequest,
    schema.SimilarResponse,
    schema.ModelResponse,
    schema.ItemsResponse,
    schema.UserResponse,
    schema.Problem,
)


@cache
def openapi() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    _, components = msgspec.json.schema_components(STRUCTS, ref_template="#/components/schemas/{name}")
    recommend = {"oneOf": [_ref("RecommendRequest"), {"type": "array", "items": _ref("RecommendRequest")}]}
    answers = {"oneOf": [_ref("RecommendResponse"), {"type": "array", "items": _ref("RecommendResponse")}]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "ADRec", "version": __version__, "description": "Sequential recommendations of a run."},
        "paths": {
            "/v1/recommend": {
                "post": _operation("Recommend items to one, or to each of a list", answers, recommend, ONE)
            },
            "/v1/similar": {
                "post": _operation(
                    "The nearest items of an item",
                    _ref("SimilarResponse"),
                    _ref("SimilarRequest"),
                    {"item": "sku-010", "k": 5},
                )
            },
            "/v1/items": {"get": _operation("Items whose id contains a text", _ref("ItemsResponse"), query="query")},
            "/v1/users/{user}": {"get": _operation("A user's history", _ref("UserResponse"), path="user")},
            "/v1/model": {"get": _operation("The model that answers", _ref("ModelResponse"))},
            "/healthz": {"get": _operation("Whether the service runs", {"type": "object"})},
            "/readyz": {"get": _operation("Whether the service answers", {"type": "object"})},
            "/metrics": {"get": _operation("Metrics for Prometheus", {"type": "string"}, media="text/plain")},
        },
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _operation(
    summary: str,
    response: dict[str, Any],
    body: dict[str, Any] | None = None,
    example: dict[str, Any] | None = None,
    *,
    query: str | None = None,
    path: str | None = None,
    media: str = "application/json",
) -> dict[str, Any]:
    problem = {"description": "A problem", "content": {"application/problem+json": {"schema": _ref("Problem")}}}
    found: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {media: {"schema": response}}}, "default": problem},
    }
    if body is not None:
        content = {"schema": body, "example": example}
        found["requestBody"] = {"required": True, "content": {"application/json": content}}
    places = {name: place for name, place in ((query, "query"), (path, "path")) if name is not None}
    if places:
        found["parameters"] = [
            {"name": name, "in": place, "required": True, "schema": {"type": "string"}}
            for name, place in places.items()
        ]
    return found
