"""The description of the service's interface, from the types of its requests and responses."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from adrec._version import __version__
from adrec.serve import schema
from adrec.serve.web import Bounds

ONE = {"user": "u001", "history": ["sku-010"], "k": 5, "explain": 2}
EVENT = {"event_id": "order-17-1", "user": "u001", "item": "sku-010", "time": "2026-11-30T12:00:00Z"}
STRUCTS = (
    *(schema.RecommendRequest, schema.RecommendResponse, schema.SimilarRequest, schema.SimilarResponse),
    *(schema.EventRequest, schema.EventsResponse, schema.ModelResponse, schema.ItemsResponse, schema.UserResponse),
    schema.Problem,
)
WHATEVER = {"type": "object"}
TOLD = {
    "400": "The body is no JSON", "401": "A key is needed", "404": "Not found", "405": "Another method is needed",
    "408": "The body came too slowly", "409": "The service cannot do it as it was started, or the run is refused",
    "413": "The body is too large", "422": "A field is wrong; the problem names it",
    "503": "Too much waits, or the deadline is over; try again",
}  # fmt: skip
ERRORS = {
    status: {
        "description": what,
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        **({"headers": {"Retry-After": {"schema": {"type": "string"}}}} if status == "503" else {}),
    }
    for status, what in TOLD.items()
}


@cache
def openapi() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    _, components = msgspec.json.schema_components(STRUCTS, ref_template="#/components/schemas/{name}")
    _limit(components, Bounds())
    return {
        "openapi": "3.1.0",
        "info": {"title": "ADRec", "version": __version__, "description": "Sequential recommendations of a run."},
        "paths": _paths(),
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _paths() -> dict[str, Any]:
    bounds = Bounds()
    user = {"in": "path", "name": "user", "required": True, "schema": {"type": "string"}}
    query = {"in": "query", "name": "query", "required": True, "schema": {"type": "string", "minLength": 1}}
    recommend = _operation(
        "Recommend items to one, or to each of a list", _one_or_list("RecommendResponse"),
        body=_one_or_list("RecommendRequest", bounds.batch), example=ONE,
    )  # fmt: skip
    similar = _operation(
        "The nearest items of an item", _ref("SimilarResponse"), body=_ref("SimilarRequest"),
        example={"item": "sku-010", "k": 5},
    )  # fmt: skip
    events = _operation(
        "Store an event, or a list; the next answer sees them", _ref("EventsResponse"),
        body=_one_or_list("EventRequest", bounds.events), example=EVENT,
    )  # fmt: skip
    erase = _operation("Erase a user's history", None, parameters=[user])
    return {
        "/v1/recommend": {"post": recommend},
        "/v1/similar": {"post": similar},
        "/v1/items": {
            "get": _operation("Items whose id or title contains a text", _ref("ItemsResponse"), parameters=[query])
        },
        "/v1/events": {"post": events},
        "/v1/users/{user}": {
            "get": _operation("A user's history", _ref("UserResponse"), parameters=[user]),
            "delete": erase,
        },
        "/v1/model": {"get": _operation("The model that answers", _ref("ModelResponse"))},
        "/v1/model/reload": {"post": _operation("Load the run anew, check it, and use it", _ref("ModelResponse"))},
        "/v1/model/rollback": {"post": _operation("Use the model before the last reload", _ref("ModelResponse"))},
        "/healthz": {"get": _operation("Whether the service runs", WHATEVER)},
        "/readyz": {"get": _operation("Whether the service answers", WHATEVER)},
        "/metrics": {"get": _operation("Metrics for Prometheus", {"type": "string"}, media="text/plain")},
    }


def _limit(components: dict[str, Any], bounds: Bounds) -> None:
    """Write the limits of a request into its types."""
    recommend = components["RecommendRequest"]["properties"]
    recommend["k"]["maximum"] = components["SimilarRequest"]["properties"]["k"]["maximum"] = bounds.k
    recommend["explain"]["maximum"] = bounds.explained
    for name in ("history", "block"):
        recommend[name]["maxItems"] = bounds.history
    for each in recommend["allow"]["anyOf"]:
        if each.get("type") == "array":
            each["maxItems"] = bounds.history


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _one_or_list(name: str, most: int | None = None) -> dict[str, Any]:
    several: dict[str, Any] = {"type": "array", "items": _ref(name)}
    return {"oneOf": [_ref(name), several if most is None else {**several, "maxItems": most}]}


def _operation(
    summary: str,
    response: dict[str, Any] | None,
    *,
    body: dict[str, Any] | None = None,
    example: dict[str, Any] | None = None,
    parameters: list[dict[str, Any]] | None = None,
    media: str = "application/json",
) -> dict[str, Any]:
    """Return an operation; without a ``response`` it answers with nothing (204)."""
    good: dict[str, Any] = {"description": summary}
    if response is not None:
        good["content"] = {media: {"schema": response}}
    found: dict[str, Any] = {
        "summary": summary,
        "responses": {"204" if response is None else "200": good, **ERRORS},
    }
    if body is not None:
        content = {"schema": body, "example": example}
        found["requestBody"] = {"required": True, "content": {"application/json": content}}
    if parameters:
        found["parameters"] = parameters
    return found
