"""The routes that recommend: a request becomes a query, and an answer a response."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from adrec.data.moments import PER_SECOND, seconds_of
from adrec.data.spans import Int64s
from adrec.inference.categories import Chain
from adrec.inference.diversity import Diverse
from adrec.inference.engine import Answer, Query
from adrec.inference.ids import Id
from adrec.inference.scorer import Choice
from adrec.live.histories import Live
from adrec.serve.batcher import Batcher
from adrec.serve.models import Models, Served
from adrec.serve.people import latest, person
from adrec.serve.schema import (
    RECOMMEND,
    SIMILAR,
    History,
    Reason,
    RecommendedItem,
    RecommendRequest,
    RecommendResponse,
    SimilarItem,
    SimilarResponse,
)
from adrec.serve.shown import Shown
from adrec.serve.web import Bounds, Guard, RequestError, answered, wrong
from adrec.utils.errors import ConfigError, did_you_mean


class Asked:
    """A request with its query.

    Attributes:
        request: the request.
        model: the model that answers.
        query: what it is asked.
        history: how much of the history is known.
    """

    def __init__(self, request: RecommendRequest, model: Served, query: Query, history: History) -> None:
        self.request, self.model, self.query, self.history = request, model, query, history


class Recommending:
    """Recommends.

    Args:
        models: which model answers whom.
        live: live histories; None without a store of events.
        batcher: the inference thread.
        guard: reads bodies.
        shown: the log of what was shown; None without one.
        category: the attribute that is the category of an item by default.
    """

    def __init__(
        self, models: Models, live: Live | None, batcher: Batcher, guard: Guard, shown: Shown | None,
        category: str | None,
    ) -> None:  # fmt: skip
        self.models, self.live, self.batcher, self.guard = models, live, batcher, guard
        self.shown, self.category = shown, category

    @property
    def bounds(self) -> Bounds:
        """The limits of a request."""
        return self.guard.bounds

    async def recommend(self, request: Request) -> Response:
        """Recommend to one, or to each of a list."""
        body = await self.guard.decoded(request, RECOMMEND)
        several = body if isinstance(body, list) else [body]
        if len(several) > self.bounds.batch:
            raise wrong(f"A list has at most {self.bounds.batch} requests; send several.", "$")
        costly = sum(each.explain > 0 or (each.slate is not None and each.slate.diversity > 0) for each in several)
        if costly > self.bounds.costly:
            raise wrong(
                f"At most {self.bounds.costly} requests of a list have a diversity or explain; send several.", "$"
            )
        began = time.monotonic()
        asked = [self._asked(each, f"$[{at}]" if several is body else "$") for at, each in enumerate(several)]
        found: list[RecommendResponse | None] = [None] * len(asked)
        for model in {id(each.model): each.model for each in asked}.values():
            places = [at for at, each in enumerate(asked) if each.model is model]
            own = [asked[at] for at in places]
            deadline = began + min(self._seconds(each.request) for each in own)
            answers = await self.batcher.ask(model.engine, [each.query for each in own], deadline)
            for at, each, answer in zip(places, own, answers, strict=True):
                found[at] = await self._response(each, answer, deadline)
        return answered(found if several is body else found[0])

    def _seconds(self, request: RecommendRequest) -> float:
        own = request.deadline_ms
        return self.bounds.seconds if own is None else min(self.bounds.seconds, own / 1000)

    async def _response(self, asked: Asked, answer: Answer, deadline: float) -> RecommendResponse:
        model, engine = asked.model, asked.model.engine
        reasons: Sequence[Any] = ()
        if asked.request.explain and answer.source == "model":
            ids = [each.item for each in answer.items]
            reasons = await self.batcher.call(
                lambda: engine.reasons(asked.query.history, ids, asked.request.explain), deadline
            )
        items = [RecommendedItem(each.item, each.score, each.confidence, answer.source) for each in answer.items]
        for item in items:
            item.title = self._title(model, item.item)
        for item, own in zip(items, reasons, strict=bool(reasons)):
            item.why = [Reason(each.item, each.change, self._title(model, each.item)) for each in own]
        if self.shown is not None and asked.request.user is not None:
            self._log(asked, [each.item for each in answer.items])
        return RecommendResponse(items, asked.history, model.digest, engine.dataset.fingerprint)

    def _title(self, model: Served, item: Id) -> str | UnsetType:
        """Return an item's title, if it has one."""
        return UNSET if model.attributes is None else model.titles[model.engine.number_of(item)] or UNSET

    def _log(self, asked: Asked, items: list[Any]) -> None:
        """Log what is shown and, once the thread is idle, what the shadow would have shown at this moment."""
        shown, shadow, user = self.shown, self.models.shadow, asked.request.user
        assert shown is not None and user is not None
        line = shown.line(user, asked.model, items, self.models.among)
        if shadow is None:
            shown.write(line)
            return
        named: dict[str, Any] = {"model": shadow.digest, "run": shadow.run}
        try:
            query = self._asked(asked.request, "$", shadow).query  # now: what comes later must not be known to it
        except RequestError as error:
            shown.write(line | {"shadow": {**named, "error": str(error)}})
            return

        def compare() -> None:
            try:
                (answer,) = shadow.engine.answer([query])
                other = {**named, "items": [each.item for each in answer.items]}
            except Exception as error:  # a shadow harms nobody
                other = {**named, "error": str(error)}
            shown.write(line | {"shadow": other})

        self.batcher.when_idle(compare, lambda: shown.write(line))

    def _asked(self, asked: RecommendRequest, place: str, model: Served | None = None) -> Asked:
        """Return a request with its query. Raises :class:`RequestError` for a value that does not do."""
        model = model or self.models.of(asked.user)
        engine, bounds = model.engine, self.bounds
        for name in ("history", "allow", "block"):
            if len(getattr(asked, name) or ()) > bounds.history:
                raise wrong(f"A list has at most {bounds.history} items.", f"{place}.{name}")
        if asked.k > bounds.k:
            raise wrong(f"k is at most {bounds.k}.", f"{place}.k")
        if asked.explain > bounds.explained:
            raise wrong(f"explain is at most {bounds.explained}.", f"{place}.explain")
        if asked.slate is not None and asked.slate.diversity and asked.k > bounds.diverse:
            raise wrong(f"With a diversity k is at most {bounds.diverse}.", f"{place}.k")
        if any(isinstance(each, list) and len(each) > bounds.history for each in asked.filter.values()):
            raise wrong(f"A list has at most {bounds.history} values.", f"{place}.filter")
        after = engine.numbers_or_0(asked.history)
        block, total, own = engine.numbers(asked.block), len(after), after
        known = None if asked.user is None else person(engine, self.live, asked.user)
        if known is not None:
            own, total = np.concatenate([known.numbers, after]), total + len(known.numbers)
        if asked.seen_within is not None:
            recent = self._recent(model, asked, known.times if known else None, known.numbers if known else None, place)
            block = np.concatenate([block, recent, after[after > 0]])
        leaves_out = (engine.seen if asked.seen == "data" else asked.seen) == "leave-out" and asked.seen_within is None
        own = own[own > 0]
        query = Query(
            own, asked.k, leaves_out, block, self._allowed(model, asked, place), self._choice(model, asked, place)
        )
        return Asked(asked, model, query, History(total, len(own)))

    def _recent(self, model: Served, asked: RecommendRequest, times: Any, numbers: Int64s | None, place: str) -> Int64s:
        """Return the items that a user had within a time before the last moment that is known."""
        last = latest(model.engine, self.live, time.time())
        if last is None:
            raise wrong("The data have no times with a unit, so seen_within means nothing.", f"{place}.seen_within")
        if asked.seen != "data":
            raise wrong("seen and seen_within exclude each other.", f"{place}.seen")
        try:
            since = last - PER_SECOND[model.engine.dataset.info.time_unit] * seconds_of(asked.seen_within or "")
        except ConfigError as error:
            raise wrong(str(error), f"{place}.seen_within") from error
        if numbers is None or times is None:
            return np.empty(0, dtype=np.int64)
        recent: Int64s = numbers[(times >= since) & (numbers > 0)]
        return recent

    def _allowed(self, model: Served, asked: RecommendRequest, place: str) -> Int64s | None:
        """Return the item numbers that alone may be recommended: those listed, and those with the attributes."""
        allowed = None if asked.allow is None else np.unique(model.engine.numbers(asked.allow))
        for name, value in asked.filter.items():
            self._check_attribute(model, name, f"{place}.filter")
            assert model.attributes is not None
            own = model.attributes.having(name, value if isinstance(value, list) else [value])
            allowed = own if allowed is None else np.intersect1d(allowed, own)
        return allowed

    def _check_attribute(self, model: Served, name: str, place: str) -> None:
        known = [] if model.attributes is None else list(model.attributes.names)
        if name not in known:
            what = f"; there are {', '.join(known)}" if known else "; the service was started without --attributes"
            raise wrong(f"There is no attribute {name!r}{did_you_mean(name, known)}{what}.", place)

    def _choice(self, model: Served, asked: RecommendRequest, place: str) -> Choice | None:
        """Return how the list as a whole is chosen; None for the best items."""
        slate, engine = asked.slate, model.engine
        if slate is None:
            return None
        choices: list[Choice] = []
        if slate.per_category is not None:
            name = slate.category or self.category
            if name is None:
                raise wrong("per_category needs a category: name an attribute.", f"{place}.slate.category")
            self._check_attribute(model, name, f"{place}.slate.category")
            assert model.attributes is not None
            choices.append(model.attributes.capped(name, slate.per_category))
        elif slate.category is not None:
            raise wrong("category alone means nothing; give per_category too.", f"{place}.slate.category")
        if slate.diversity:
            vectors = engine.vectors
            if vectors is None:
                raise wrong(f"The model {model.name} has no item vectors.", f"{place}.slate.diversity")
            choices.append(Diverse(vectors, slate.diversity, engine.recommender.temperature))
        return Chain(choices) if choices else None

    async def similar(self, request: Request) -> Response:
        """Return the nearest items of an item."""
        asked, model = await self.guard.decoded(request, SIMILAR), self.models.current
        engine = model.engine
        if asked.k > self.bounds.k:
            raise wrong(f"k is at most {self.bounds.k}.", "$.k")
        if engine.vectors is None:
            raise RequestError(409, "Conflict", f"The model {model.name} has no item vectors.")
        found = await self.batcher.call(
            lambda: engine.similar(asked.item, asked.k), time.monotonic() + self.bounds.seconds
        )
        if found is None:
            raise RequestError(404, "Not Found", f"There is no item {asked.item!r} that the model knows.", "$.item")
        items = [SimilarItem(item, score, self._title(model, item)) for item, score in found]
        return answered(SimilarResponse(items, model.digest))
