"""What all routes share: limits, errors as problems (RFC 9457), bodies, API keys and counts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from adrec.live.histories import FullError
from adrec.serve.batcher import BusyError
from adrec.serve.keys import is_known
from adrec.serve.metrics import Metrics
from adrec.serve.schema import Problem

Kind = TypeVar("Kind")
Answer = Callable[[Request], Awaitable[Response]]
JSON, PROBLEM = "application/json", "application/problem+json"
OPEN = frozenset({"/", "/page.js", "/page.css", "/healthz", "/readyz"})  # paths that need no key
LOCAL = ("localhost", "127.0.0.1", "[::1]")
encoder = msgspec.json.Encoder()
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bounds:
    """The limits of a request.

    Attributes:
        body: bytes of its body.
        history: items of a history, and of a list of items.
        k: items that are recommended.
        batch: requests in one.
        events: events in one.
        explained: items of the history that are named for each recommended item.
        items: items that a search returns.
        costly: requests of a list that have a diversity, or reasons.
        diverse: items that are recommended with a diversity.
        ahead: seconds that the time of an event may be ahead of ours.
        seconds: until it is answered.
        reading: seconds until its body has come.
    """

    body: int = 1 << 20
    history: int = 1000
    k: int = 500
    batch: int = 256
    events: int = 1000
    explained: int = 10
    items: int = 50
    costly: int = 16
    diverse: int = 100
    ahead: float = 300.0
    seconds: float = 2.0
    reading: float = 10.0


class RequestError(Exception):
    """Raised for a request that cannot be answered: the status, the reason and the field that is wrong."""

    def __init__(self, status: int, title: str, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.problem = Problem(title, status, detail, field=field)


def wrong(detail: str, field: str) -> RequestError:
    """Return the error of a field whose value does not do."""
    return RequestError(422, "Unprocessable Content", detail, field)


def answered(value: Any) -> Response:
    """Return a value as JSON."""
    return Response(encoder.encode(value), media_type=JSON)


def problem(found: Problem) -> Response:
    """Return an error as RFC 9457 has it."""
    return Response(encoder.encode(found), status_code=found.status, media_type=PROBLEM)


class Guard:
    """Wraps routes: checks the API key, turns errors into problems and counts.

    Args:
        keys: the digests of the API keys; without any, no key is needed.
        metrics: the counts.
        bounds: the limits of a request.
        local: whether only this machine's own names are answered to, so that no web site can ask in a visitor's name.
    """

    def __init__(self, keys: Sequence[str], metrics: Metrics, bounds: Bounds, local: bool = False) -> None:
        self.keys, self.metrics, self.bounds, self.local = keys, metrics, bounds, local

    def __call__(self, answer: Answer) -> Answer:
        """Return the guarded route."""

        async def route(request: Request) -> Response:
            began, path = time.perf_counter(), request.scope["route"].path
            try:
                self._check_origin(request)
                self._check_key(request, path)
                response = await answer(request)
            except RequestError as error:
                response = problem(error.problem)
            except ClientDisconnect:
                response = Response(status_code=499)  # nobody reads it
            except (BusyError, FullError) as error:
                response = problem(Problem("Service Unavailable", 503, f"{error}."))
                response.headers["Retry-After"] = "1"
            self.metrics.on_request(path, response.status_code, time.perf_counter() - began)
            return response

        return route

    def _check_origin(self, request: Request) -> None:
        """Refuse what a page of another site asks; without keys, also a name that is not this machine's."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if self.local and not self.keys and _name(host) not in LOCAL:
            raise RequestError(403, "Forbidden", f"Without keys the service answers to {', '.join(LOCAL)} alone.")
        if origin is not None and origin.partition("://")[2] != host:
            raise RequestError(403, "Forbidden", "Pages of other sites may not ask.")

    def _check_key(self, request: Request, path: str) -> None:
        if not self.keys or path in OPEN:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = [token.strip() if scheme.lower() == "bearer" else "", request.headers.get("x-api-key", "")]
        if not any([is_known(each, self.keys) for each in given]):  # noqa: C419 - both, whichever it is
            raise RequestError(401, "Unauthorized", "Give an API key: Authorization: Bearer KEY.")

    async def body(self, request: Request) -> bytes:
        """Return the body. Raises :class:`RequestError` if it is too large or comes too slowly."""
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.bounds.reading):
                async for part in request.stream():
                    size += len(part)
                    if size > self.bounds.body:
                        raise RequestError(
                            413, "Content Too Large", f"The body has more than {self.bounds.body:,} bytes; send less."
                        )
                    parts.append(part)
        except TimeoutError as error:
            raise RequestError(408, "Request Timeout", "The body came too slowly.") from error
        return b"".join(parts)

    async def decoded(self, request: Request, decoder: msgspec.json.Decoder[Kind]) -> Kind:
        """Return the decoded body. Raises :class:`RequestError` that names the field."""
        body = await self.body(request)
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            text, _, place = str(error).partition(" - at `")
            raise wrong(f"{text}.", place.rstrip("`") or "$") from error
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise RequestError(400, "Bad Request", f"The body is not JSON: {error}.") from error


def _name(host: str) -> str:
    """Return a host without its port."""
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


async def not_found(request: Request, error: Exception) -> Response:
    """Answer for a path that is not there."""
    return problem(Problem("Not Found", 404, "There is no such path; /openapi.json describes them."))


async def not_allowed(request: Request, error: Any) -> Response:
    """Answer for a path with another method."""
    response = problem(Problem("Method Not Allowed", 405, "The path takes another method; /openapi.json has it."))
    response.headers.update(error.headers or {})
    return response


class Unforeseen:
    """Turns whatever else goes wrong into a problem without details, which are logged by the server."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        begun = False

        async def sending(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except Exception:
            if scope["type"] != "http" or begun:
                raise
            self.metrics.on_failure()
            logger.exception("a request failed")
            await problem(Problem("Internal Server Error", 500, "The service failed; its log says why."))(
                scope, receive, send
            )
