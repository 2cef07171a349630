"""The HTTP application: routes, limits and errors. It answers with what :mod:`adrec.inference.engine` gives."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from adrec.inference.engine import Engine, Query
from adrec.serve.batcher import Batcher, BusyError
from adrec.serve.keys import is_known
from adrec.serve.metrics import Metrics
from adrec.serve.openapi import openapi
from adrec.serve.schema import (
    History,
    ItemsResponse,
    ModelResponse,
    Problem,
    RecommendedItem,
    RecommendRequest,
    RecommendResponse,
    SimilarItem,
    SimilarRequest,
    SimilarResponse,
    UserResponse,
)

Kind = TypeVar("Kind")
JSON, PROBLEM = "application/json", "application/problem+json"
OPEN = frozenset({"/healthz", "/readyz"})  # paths that need no key
encoder = msgspec.json.Encoder()


@dataclass(frozen=True)
class Bounds:
    """The limits of a request.

    Attributes:
        body: bytes of its body.
        history: items of a history, and of a list of items.
        k: items that are recommended.
        batch: requests in one.
        items: items that a search returns.
        seconds: until it is answered.
        reading: seconds until its body has come.
    """

    body: int = 1 << 20
    history: int = 1000
    k: int = 500
    batch: int = 256
    items: int = 50
    seconds: float = 2.0
    reading: float = 10.0


class RequestError(Exception):
    """Raised for a request that cannot be answered: the status, the reason and the field that is wrong."""

    def __init__(self, status: int, title: str, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.problem = Problem(title, status, detail, field=field)


class About(NamedTuple):
    """What is told about the model.

    Attributes:
        model: the digest that identifies the model.
        name: the name of the model's kind.
        run: the run's folder.
        data: the fingerprint of the data set.
        data_name: its name.
        split: the split that the model was trained on.
    """

    model: str
    name: str
    run: str
    data: str
    data_name: str
    split: str


class Service:
    """The routes of the service.

    Args:
        engine: answers queries.
        about: what is told about the model.
        bounds: the limits of a request.
        keys: the digests of the API keys; without any, no key is needed.
    """

    def __init__(self, engine: Engine, about: About, *, bounds: Bounds | None = None, keys: Sequence[str] = ()) -> None:
        self.engine, self.about, self.bounds, self.keys = engine, about, bounds or Bounds(), keys
        self.metrics = Metrics(about.model, about.name)
        self.batcher = Batcher(engine.answer, on_batch=self.metrics.on_batch)
        self._one = msgspec.json.Decoder(RecommendRequest | list[RecommendRequest])
        self._similar = msgspec.json.Decoder(SimilarRequest)

    def app(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route("/v1/recommend", self._route(self.recommend), methods=["POST"]),
            Route("/v1/similar", self._route(self.similar), methods=["POST"]),
            Route("/v1/items", self._route(self.items), methods=["GET"]),
            Route("/v1/users/{user}", self._route(self.user), methods=["GET"]),
            Route("/v1/model", self._route(self.model), methods=["GET"]),
            Route("/healthz", self._route(self.health), methods=["GET"]),
            Route("/readyz", self._route(self.health), methods=["GET"]),
            Route("/metrics", self._route(self.measured), methods=["GET"]),
            Route("/openapi.json", self._route(self.document), methods=["GET"]),
        ]
        return Starlette(
            routes=routes,
            lifespan=self._lifespan,
            middleware=[Middleware(_Unknown, metrics=self.metrics)],
            exception_handlers={404: _not_found, 405: _not_allowed},
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(self.batcher.end)

    def _route(self, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """Return a route that checks the key, turns errors into problems and counts."""

        async def route(request: Request) -> Response:
            began, path = time.perf_counter(), request.scope["route"].path
            try:
                self._check_key(request)
                response = await answer(request)
            except RequestError as error:
                response = problem(error.problem)
            except BusyError as error:
                response = problem(Problem("Service Unavailable", 503, f"{error}."))
                response.headers["Retry-After"] = "1"
            self.metrics.on_request(path, response.status_code, time.perf_counter() - began)
            return response

        return route

    def _check_key(self, request: Request) -> None:
        if not self.keys or request.url.path in OPEN:
            return
        given = request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key", "")
        if not is_known(given, self.keys):
            raise RequestError(401, "Unauthorized", "Give an API key: Authorization: Bearer KEY.")

    async def _body(self, request: Request) -> bytes:
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

    async def _decoded(self, request: Request, decoder: msgspec.json.Decoder[Kind]) -> Kind:
        body = await self._body(request)
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            text, _, place = str(error).partition(" - at `")
            raise RequestError(422, "Unprocessable Content", f"{text}.", place.rstrip("`") or "$") from error
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise RequestError(400, "Bad Request", f"The body is not JSON: {error}.") from error

    async def recommend(self, request: Request) -> Response:
        """Recommend to one, or to each of a list."""
        asked = await self._decoded(request, self._one)
        several = asked if isinstance(asked, list) else [asked]
        if len(several) > self.bounds.batch:
            raise RequestError(
                422, "Unprocessable Content", f"A list has at most {self.bounds.batch} requests; send several.", "$"
            )
        made = [self._query(each, f"$[{at}]" if asked is several else "$") for at, each in enumerate(several)]
        answers = await self.batcher.ask([query for query, _ in made], self.bounds.seconds)
        found = [
            RecommendResponse(
                [RecommendedItem(each.item, each.score, each.confidence, answer.source) for each in answer.items],
                history,
                self.about.model,
                self.about.data,
            )
            for answer, (_, history) in zip(answers, made, strict=True)
        ]
        return Response(encoder.encode(found if asked is several else found[0]), media_type=JSON)

    def _query(self, asked: RecommendRequest, place: str) -> tuple[Query, History]:
        """Return the query of a request, and how much of its history is known."""
        engine, bounds = self.engine, self.bounds
        for name in ("history", "allow", "block"):
            if len(getattr(asked, name) or ()) > bounds.history:
                raise RequestError(
                    422, "Unprocessable Content", f"A list has at most {bounds.history} items.", f"{place}.{name}"
                )
        if asked.k > bounds.k:
            raise RequestError(422, "Unprocessable Content", f"k is at most {bounds.k}.", f"{place}.k")
        own = engine.numbers(asked.history)
        given = len(asked.history)
        if asked.user is not None:
            before = engine.history_of(asked.user)
            if before is not None:
                own = before if not len(own) else engine.joined(before, own)
                given += engine.interactions_of(asked.user) or 0
        policy = engine.seen if asked.seen == "data" else asked.seen
        allow = None if asked.allow is None else engine.numbers(asked.allow)
        query = Query(own, asked.k, policy == "leave-out", engine.numbers(asked.block), allow)
        return query, History(given, len(own))

    async def similar(self, request: Request) -> Response:
        """Return the nearest items of an item."""
        asked = await self._decoded(request, self._similar)
        if asked.k > self.bounds.k:
            raise RequestError(422, "Unprocessable Content", f"k is at most {self.bounds.k}.", "$.k")
        if not self.engine.has_vectors:
            raise RequestError(409, "Conflict", f"The model {self.about.name} has no item vectors.")
        found = await asyncio.to_thread(self.engine.similar, asked.item, asked.k)
        if found is None:
            raise RequestError(404, "Not Found", f"There is no item {asked.item!r} that the model knows.", "$.item")
        items = [SimilarItem(item, score) for item, score in found]
        return Response(encoder.encode(SimilarResponse(items, self.about.model)), media_type=JSON)

    async def items(self, request: Request) -> Response:
        """Return items whose id contains a text."""
        text = request.query_params.get("query", "")
        if not text:
            raise RequestError(422, "Unprocessable Content", "Give a text to look for: ?query=TEXT.", "query")
        found = await asyncio.to_thread(self.engine.items_with, text, self.bounds.items)
        return Response(encoder.encode(ItemsResponse(found)), media_type=JSON)

    async def user(self, request: Request) -> Response:
        """Return a user's history."""
        user = request.path_params["user"]
        found = self.engine.user(user)
        if found is None:
            raise RequestError(404, "Not Found", f"There is no user {user!r}.", "user")
        return Response(encoder.encode(UserResponse(*found)), media_type=JSON)

    async def model(self, request: Request) -> Response:
        """Return which model answers."""
        engine = self.engine
        found = ModelResponse(
            **self.about._asdict(), items=engine.num_items, users=engine.dataset.num_users, seen=engine.seen
        )
        return Response(encoder.encode(found), media_type=JSON)

    async def health(self, request: Request) -> Response:
        """Say that the service answers."""
        return Response(b'{"status":"ok"}', media_type=JSON)

    async def measured(self, request: Request) -> Response:
        """Return the metrics in the format of Prometheus."""
        self.metrics.queued.set(self.batcher.queued)
        return Response(self.metrics.page(), media_type=self.metrics.media_type)

    async def document(self, request: Request) -> Response:
        """Return the description of this interface."""
        return Response(encoder.encode(openapi()), media_type=JSON)


def problem(found: Problem) -> Response:
    """Return an error as RFC 9457 has it."""
    return Response(encoder.encode(found), status_code=found.status, media_type=PROBLEM)


async def _not_found(request: Request, error: Exception) -> Response:
    return problem(Problem("Not Found", 404, "There is no such path; /openapi.json describes them."))


async def _not_allowed(request: Request, error: Any) -> Response:
    response = problem(Problem("Method Not Allowed", 405, "The path takes another method; /openapi.json has it."))
    response.headers.update(error.headers or {})
    return response


class _Unknown:
    """Turns whatever else goes wrong into a problem without details, which are logged by the server."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
            await problem(Problem("Internal Server Error", 500, "The service failed; its log says why."))(
                scope, receive, send
            )
