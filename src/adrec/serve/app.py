"""The HTTP application: its routes, from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files

from msgspec import UNSET
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adrec.data.weights import parse_weights
from adrec.live.events import Event
from adrec.live.histories import Live
from adrec.serve.batcher import Batcher
from adrec.serve.metrics import Metrics
from adrec.serve.models import Models, Served
from adrec.serve.openapi import openapi
from adrec.serve.people import person
from adrec.serve.recommending import Recommending
from adrec.serve.schema import (
    EVENTS,
    TEXT,
    EventRequest,
    EventsResponse,
    FoundItem,
    ItemsResponse,
    ModelResponse,
    UserResponse,
)
from adrec.serve.shown import Shown
from adrec.serve.web import Bounds, Guard, RequestError, Unforeseen, answered, not_allowed, not_found, wrong
from adrec.utils.errors import DataError, UserError

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
PAGE_FILES = {"/": ("page.html", "text/html"), "/page.js": ("page.js", "text/javascript"),
              "/page.css": ("page.css", "text/css")}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Options of a service.

    Attributes:
        keys: the digests of the API keys; without any, no key is needed.
        category: the attribute that is the category of an item by default.
        bounds: the limits of a request.
        local: whether it listens on this machine alone.
    """

    keys: Sequence[str] = ()
    category: str | None = None
    bounds: Bounds = field(default_factory=Bounds)
    local: bool = False


class Service:
    """The routes of the service.

    Args:
        models: which model answers whom.
        live: live histories; None without a store of events.
        shown: the log of what is shown; None without one.
        options: keys and limits.
    """

    def __init__(
        self, models: Models, *, live: Live | None = None, shown: Shown | None = None, options: Options | None = None
    ) -> None:
        options = options or Options()
        self.models, self.live, self.shown = models, live, shown
        models.live = live
        self.metrics = Metrics()
        self.metrics.on_model(models.current.digest, models.current.name)
        self.batcher = Batcher(on_batch=self.metrics.on_batch)
        self.guard = Guard(options.keys, self.metrics, options.bounds, options.local)
        self.recommending = Recommending(models, live, self.batcher, self.guard, shown, options.category)
        self._changing = asyncio.Lock()

    def app(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            ("/v1/recommend", self.recommending.recommend, ["POST"]),
            ("/v1/similar", self.recommending.similar, ["POST"]),
            ("/v1/items", self.items, ["GET"]),
            ("/v1/events", self.events, ["POST"]),
            ("/v1/users/{user:path}", self.user, ["GET", "DELETE"]),
            ("/v1/model", self.model, ["GET"]),
            ("/v1/model/reload", self.reload, ["POST"]),
            ("/v1/model/rollback", self.rollback, ["POST"]),
            ("/healthz", self.health, ["GET"]),
            ("/readyz", self.ready, ["GET"]),
            ("/metrics", self.measured, ["GET"]),
            ("/openapi.json", self.document, ["GET"]),
            *((path, self.page, ["GET"]) for path in PAGE_FILES),
        ]
        return Starlette(
            routes=[Route(path, self.guard(answer), methods=methods) for path, answer, methods in routes],
            lifespan=self._lifespan,
            middleware=[Middleware(Unforeseen, metrics=self.metrics)],
            exception_handlers={404: not_found, 405: not_allowed},
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        gc.collect()
        gc.freeze()  # what is loaded stays: to look through it takes a tenth of a second each time
        yield
        await asyncio.to_thread(self.batcher.end)
        if self.live is not None:
            await asyncio.to_thread(self.live.end)
        if self.shown is not None:
            self.shown.end()

    async def items(self, request: Request) -> Response:
        """Return items whose id or title contains a text."""
        text, model = request.query_params.get("query", ""), self.models.current
        if not text:
            raise wrong("Give a text to look for: ?query=TEXT.", "query")
        unknown = next((name for name in request.query_params if name != "query"), None)
        if unknown is not None:
            raise wrong(f"There is no parameter {unknown!r}; there is query.", unknown)
        return answered(await asyncio.to_thread(_items_with, model, text, self.guard.bounds.items))

    async def events(self, request: Request) -> Response:
        """Store events; they are on disk, and in the next answer, when this is answered."""
        live = self._live()
        body = await self.guard.decoded(request, EVENTS)
        several = body if isinstance(body, list) else [body]
        if len(several) > self.guard.bounds.events:
            raise wrong(f"A list has at most {self.guard.bounds.events} events; send several.", "$")
        places = [f"$[{at}]" if several is body else "$" for at in range(len(several))]
        events = [self._event(each, place) for each, place in zip(several, places, strict=True)]
        try:
            stored = await live.add(events) if events else 0
        except DataError as error:
            raise RequestError(503, "Service Unavailable", "The events cannot be stored; send them again.") from error
        self.metrics.on_events(stored)
        return answered(EventsResponse(stored, len(events) - stored))

    def _event(self, asked: EventRequest, place: str) -> Event:
        """Return an event. Raises :class:`RequestError` for one that the data set could not have."""
        engine = self.models.current.engine
        user, item = engine.user_id(asked.user), engine.item_id(asked.item)
        for name, value, fits in (("user", user, engine.is_user(user)), ("item", item, engine.is_item(item))):
            if not fits:
                raise wrong(f"The ids of the data set are whole numbers, and {value!r} is none.", f"{place}.{name}")
        weights = engine.dataset.info.preparation.get("event_weights")
        if weights is not None and asked.event not in (known := list(parse_weights(weights))):
            raise wrong(f"event must be one of {', '.join(known)}, which have weights.", f"{place}.event")
        time_ms = _time_ms(asked, place)
        if time_ms > 1000 * (time.time() + self.guard.bounds.ahead):
            raise wrong("The time is in the future.", f"{place}.time")
        return Event(asked.event_id, str(user), str(item), time_ms, asked.event)

    async def user(self, request: Request) -> Response:
        """Return a user's history, or erase it."""
        user = request.path_params["user"]
        if len(user) > TEXT or "\x00" in user:
            raise wrong(f"An id has at most {TEXT} characters, and none of them is NUL.", "user")
        if request.method == "DELETE":
            return await self.erase(user)
        model = self.models.of(user)
        found = person(model.engine, self.live, user)
        if found is None:
            raise RequestError(404, "Not Found", f"There is no user {user!r}.", "user")
        titles = [model.titles[number] if number else None for number in found.numbers.tolist()]
        ids = found.items(model.engine)
        return answered(UserResponse(found.user, ids, UNSET if model.attributes is None else titles))

    async def erase(self, user: str) -> Response:
        """Erase a user: the events are deleted, and what the data set has is not used any more."""
        live = self._live()
        try:
            await live.erase(str(self.models.current.engine.user_id(user)))
        except DataError as error:
            raise RequestError(503, "Service Unavailable", "The user cannot be erased now; ask again.") from error
        return Response(status_code=204)

    def _live(self) -> Live:
        if self.live is None:
            raise RequestError(409, "Conflict", "The service was started without --events, a store of events.")
        return self.live

    async def model(self, request: Request) -> Response:
        """Return which model answers."""
        return answered(self._about())

    def _about(self) -> ModelResponse:
        model, previous = self.models.current, self.models.previous
        engine, info = model.engine, model.engine.dataset.info
        index = engine.index
        return ModelResponse(
            model=model.digest, name=model.name, run=model.run, data=engine.dataset.fingerprint, data_name=info.name,
            items=engine.num_items, users=engine.dataset.num_users, seen=engine.seen,
            split=model.split, category=self.recommending.category,
            previous=None if previous is None else previous.digest, accuracy=model.accuracy, protocol=model.protocol,
            index=None if index is None else {"recall": index.recall, "searched": index.searched},
        )  # fmt: skip

    async def reload(self, request: Request) -> Response:
        """Load the run anew and let it answer, if it passes the checks."""
        async with self._changing:
            try:
                found = await asyncio.to_thread(self.models.reload)
            except UserError as error:
                raise RequestError(409, "Conflict", f"The run is refused, and the model goes on: {error}") from error
        return self._changed(found)

    async def rollback(self, request: Request) -> Response:
        """Let the model before the last reload answer again."""
        async with self._changing:
            found = self.models.rollback()
        if found is None:
            raise RequestError(409, "Conflict", "There is no model before this one.")
        return self._changed(found)

    def _changed(self, model: Served) -> Response:
        gc.freeze()
        self.metrics.on_model(model.digest, model.name)
        return answered(self._about())

    async def health(self, request: Request) -> Response:
        """Say that the service answers."""
        return answered({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Say whether requests are answered: whether the threads run."""
        if not self.batcher.is_alive or (self.live is not None and not self.live.is_alive):
            raise RequestError(503, "Service Unavailable", "A thread of the service has ended; start it anew.")
        return await self.health(request)

    async def measured(self, request: Request) -> Response:
        """Return the metrics in the format of Prometheus."""
        self.metrics.queued.set(self.batcher.queued)
        self.metrics.unlogged.set(0 if self.shown is None else self.shown.lost)
        return Response(self.metrics.page(), media_type=self.metrics.media_type)

    async def document(self, request: Request) -> Response:
        """Return the description of this interface."""
        return answered(openapi())

    async def page(self, request: Request) -> Response:
        """Return a file of the page for people."""
        name, kind = PAGE_FILES[request.url.path]
        content = files("adrec.serve").joinpath("page", name).read_bytes()
        return Response(content, media_type=kind, headers=PAGE_HEADERS)


def _time_ms(event: EventRequest, place: str) -> int:
    if event.time is None:
        return int(1000 * time.time())
    if isinstance(event.time, datetime):
        since = event.time - datetime(1970, 1, 1, tzinfo=UTC)
        if since < timedelta(0):
            raise wrong("The time is before 1970.", f"{place}.time")
        return since // timedelta(milliseconds=1)
    return event.time


def _items_with(model: Served, text: str, most: int) -> ItemsResponse:
    """Return items whose title or id contains a text, whatever its case.

    First those that are the text, then those that begin with it.
    """
    wanted = text.lower()
    places: tuple[list[int], ...] = ([], [], [])
    lowered = None if model.attributes is None else model.attributes.lowered
    for number, each in enumerate(model.engine.known_items, start=1):
        names = (str(each).lower(), "" if lowered is None else lowered[number])
        if wanted in names:
            places[0].append(number)
        elif any(name.startswith(wanted) for name in names):
            places[1].append(number)
        elif any(wanted in name for name in names):
            places[2].append(number)
    chosen = [number for own in places for number in own][:most]
    return ItemsResponse([FoundItem(model.engine.item_of(at), model.titles[at] or UNSET) for at in chosen])
