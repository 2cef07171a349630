"""Loading of a run for the service."""

from __future__ import annotations

from pathlib import Path

from adrec.api.model import ADRec
from adrec.inference.engine import Engine, Query
from adrec.runs.folder import Run
from adrec.serve.app import About
from adrec.utils.errors import RunError

WARM = 8  # histories that are answered before the first request, as the first ones take longest


def load(path: Path, *, data: Path | None = None, device: str = "cpu") -> tuple[Engine, About]:
    """Return an engine that answers with the run at ``path``, and what is told about it.

    Raises:
        RunError: if there is no finished run, or its files are damaged.
        DataError: if the data set is missing or is another one.
    """
    recommender = ADRec.load(path, data=data, device=device).recommender()
    info = Run.open(path).info
    engine = recommender.engine
    about = About(
        model=info.weights_digest,
        name=info.model,
        run=path.absolute().name,
        data=recommender.dataset.fingerprint,
        data_name=recommender.dataset.info.name,
        split=info.split,
    )
    _warm(engine)
    return engine, about


def _warm(engine: Engine) -> None:
    """Answer some histories. Raises :class:`RunError` if an answer is empty."""
    users = engine.dataset.users.ids.head(WARM).to_list()
    histories = [each for user in users if (each := engine.history_of(user)) is not None]
    answers = engine.answer([Query(each, 1, False, each[:0]) for each in histories])
    if not all(answer.items for answer in answers):
        raise RunError("the run recommends nothing to its first users; train it again.")
