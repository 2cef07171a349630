"""The models that answer: the current one, the one before, and those that it is compared with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from adrec.api.model import ADRec
from adrec.inference.engine import Engine, Query
from adrec.inference.ids import Id
from adrec.inference.index import IndexName, indexed
from adrec.live.histories import Live
from adrec.runs.folder import EVALUATION, Run
from adrec.runs.info import RunInfo
from adrec.serve.attributes import Attributes
from adrec.serve.people import until
from adrec.utils.errors import ConfigError, DataError, RunError

EXPORT = "onnx"  # the folder of a run with its export
GOLDEN = 32  # histories whose answers are checked, which also warms up the model
AGREE = 1e-3  # difference of two scores that are computed in two ways, relative to the largest


@dataclass(frozen=True)
class Served:
    """A model that answers.

    Attributes:
        path: the run's folder, behind all links.
        engine: answers queries.
        digest: identifies the model.
        name: its kind.
        split: the split that it was trained on.
        attributes: the attributes of its items; None if there are none.
        accuracy: metrics of the test part beside the run, if it was evaluated.
        protocol: how they were measured.
    """

    path: Path
    engine: Engine
    digest: str
    name: str
    split: str
    attributes: Attributes | None
    accuracy: dict[str, float] | None = None
    protocol: str | None = None

    @property
    def run(self) -> str:
        """The name of the run's folder."""
        return self.path.name

    @cached_property
    def titles(self) -> list[str | None]:
        """The title of each item number."""
        return [None] * (self.engine.num_items + 1) if self.attributes is None else self.attributes.titles


@dataclass(frozen=True)
class Loading:
    """How a run is loaded.

    Attributes:
        data: the path of its data set, if it was moved.
        device: where it computes.
        attributes: ``item`` and an attribute a column; None if there are none.
        names: the column of titles.
        index: the kind of the index of nearest items; None ranks the whole catalogue.
        onnx: whether the export in the run's folder ``onnx`` computes the scores, with ONNX Runtime.
        threads: the number of CPU threads of ONNX Runtime.
    """

    data: Path | None = None
    device: str = "cpu"
    attributes: pl.DataFrame | None = None
    names: str | None = None
    index: IndexName | None = None
    onnx: bool = False
    threads: int = 1

    def __call__(self, path: Path) -> Served:
        """Load the run at ``path``, verify its files and check its answers.

        Raises:
            RunError: if there is no finished run, its files are damaged, or its answers are wrong.
            DataError: if the data set is missing or is another one.
        """
        path = path.resolve()  # once: a link may change meanwhile
        model = ADRec.load(path, data=self.data, device=self.device)
        info = Run.open(path).info
        engine = model.recommender(onnx=path / EXPORT if self.onnx else None, threads=self.threads).engine
        check_answers(engine)
        if self.index is not None:
            engine.index = indexed(engine, self.index, cache=path / f"index-{info.weights_digest[:16]}.{self.index}")
        table = self.attributes
        accuracy, protocol = _accuracy(path, info)
        return Served(
            path, engine, info.weights_digest, info.model, info.split,
            None if table is None else Attributes(table, engine, self.names), accuracy, protocol,
        )  # fmt: skip


def check_answers(engine: Engine) -> None:
    """Compare the scores of some histories with those of ``adrec recommend``, which takes another way to them.

    Raises :class:`RunError` if they differ, or if nothing is recommended.
    """
    users = engine.dataset.users.ids.head(GOLDEN).to_list()
    histories = [each for user in users if (each := engine.history_of(user)) is not None and len(each)]
    if not histories:
        return
    k = min(10, engine.num_items)
    answers = engine.answer([Query(each, k, False, each[:0]) for each in histories])
    people = [[engine.item_of(number) for number in each.tolist()] for each in histories]
    table = engine.recommender.for_histories(people, k, seen="keep").table
    expected = table["score"].to_numpy().reshape(len(histories), k)
    found = np.array([[item.score for item in answer.items] for answer in answers])
    if found.shape != expected.shape or not np.allclose(
        found, expected, atol=AGREE * max(1e-30, np.abs(expected).max())
    ):
        raise RunError("the run's answers to its first users are not those of adrec recommend; train it again.")


def _accuracy(path: Path, info: RunInfo) -> tuple[dict[str, float] | None, str | None]:
    """Return the metrics that ``adrec evaluate`` found, and the protocol; None if it was not evaluated.

    A refit has those of the run that provided its settings, as nothing is held out from itself.
    """
    places, which = [path], ""
    if info.refit_of is not None:  # where it was or, if folders were moved together, beside this one
        places, which = (
            [Path(info.refit_of), path.parent / Path(info.refit_of).name],
            ", of the run that it is a refit of",
        )
    file = next((each / EVALUATION for each in places if (each / EVALUATION).is_file()), path / EVALUATION)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        metrics = {name: float(value["mean"]) for name, value in found["metrics"].items()}
        seen = "left out" if found["filter_seen"] else "ranked too"
        return metrics, f"{found['part']} part of {found['split']}, whole catalogue, seen items {seen}{which}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, None


class Models:
    """Which model answers whom.

    Args:
        load: loads a run.
        path: the run.
        shadow: a run that is asked too, without its answers being shown.
        splits: runs that answer a share of the users, by a hash of the user.
    """

    def __init__(
        self, load: Loading, path: Path, *, shadow: Path | None = None, splits: tuple[tuple[Path, float], ...] = ()
    ) -> None:
        self.load, self.path = load, path
        self.current = load(path)
        self.previous: Served | None = None
        self.shadow = None if shadow is None else load(shadow)
        self.splits = [(load(each), share) for each, share in splits]
        self.live: Live | None = None

    @property
    def among(self) -> list[str]:
        """The digests of the models that share the users."""
        return [self.current.digest, *(model.digest for model, _ in self.splits)]

    def of(self, user: Id | None) -> Served:
        """Return the model that answers a user."""
        if user is None or not self.splits:
            return self.current
        at = share_of(user)
        for model, share in self.splits:
            if at < share:
                return model
            at -= share
        return self.current

    def oldest_event(self, store: str) -> int:
        """Return the number of the last event of a store that every model's data set contains."""
        loaded = [self.current, self.previous, self.shadow, *(model for model, _ in self.splits)]
        return min(until(each.engine, store) for each in loaded if each is not None)

    def check_store(self, store: str, last: int) -> None:
        """Raise :class:`DataError` if a data set has events that the store does not: new ones would seem to be old."""
        for each in (self.current, self.shadow, *(model for model, _ in self.splits)):
            if each is not None and until(each.engine, store) > last:
                raise DataError(
                    f"the data of {each.run} contain later events than the store has: it is an older copy; restore the "
                    "newest one, or start with a new store."
                )

    def reload(self) -> Served:
        """Load the run anew, check it, and let it answer; the current model goes on if anything is wrong with it."""
        found = self.load(self.path)
        if self.live is not None and until(found.engine, self.live.store.id) < self.live.first:
            raise ConfigError(
                f"the data of {self.path} end before the events that this service has in memory; start it anew."
            )
        self.previous, self.current = self.current, found
        if self.live is not None:
            self.live.forget(self.oldest_event(self.live.store.id))
        return found

    def rollback(self) -> Served | None:
        """Let the model before the last reload answer again; None if there is none."""
        if self.previous is None:
            return None
        self.previous, self.current = self.current, self.previous
        return self.current


def share_of(user: Id) -> float:
    """Return a number in [0, 1) that depends on the user alone."""
    return int.from_bytes(hashlib.sha256(str(user).encode("utf-8", "replace")).digest()[:8], "big") / 2.0**64
