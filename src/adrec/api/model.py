"""The Python interface: fit a table of interactions, recommend, save and load."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Unpack

from adrec.api.frames import FrameKind, as_kind, checked_kind, frame_kind, ids, is_frame, told
from adrec.api.training import prepared, train
from adrec.config.base import DEFAULT_SEED, Settings, check_seed
from adrec.config.diffusion import Sampler
from adrec.config.stage import SeenOrData
from adrec.data.dataset import Dataset, write_dataset
from adrec.data.lists import read_pairs, read_rules
from adrec.data.preparation import PreparationOptions
from adrec.evaluate.protocol import DEFAULT_CUTOFFS, Evaluation, evaluate
from adrec.inference.recommender import Recommendations, Recommender
from adrec.inference.rules import Rules
from adrec.inference.similar import similar_items
from adrec.models.base import Model
from adrec.models.factory import find_device, make_model
from adrec.models.registry import find_model
from adrec.runs.folder import Run, write_identity
from adrec.runs.info import RunInfo
from adrec.runs.metrics import NO_ROWS
from adrec.runs.refit import refit_config
from adrec.runs.weights import write_weights
from adrec.utils.errors import ConfigError, UserError
from adrec.utils.folders import RUN, atomic_folder, check_folder


class ADRec:
    """Sequential recommendation with auto-regression and token-level diffusion.

    >>> model = ADRec().fit(interactions)                     # pandas, polars, pyarrow or a path
    >>> model.recommend(users=["anna"], k=10)                 # user, item, score, rank, source, confidence
    >>> model.recommend(histories=[["tt0111161", "tt0068646"]], k=10)
    >>> model.save("model/"); model = ADRec.load("model/")

    Args:
        preset: the configuration to start from: ``default``, or another of the model's (ADRec has ``cam``,
            ``fast``, ``paper`` and ``published``).
        model: ``adrec``, or the name of a baseline (:func:`adrec.models.registry.model_names`), or ``module:Class``.
        changes: changes of single keys, such as ``{"hidden_size": 64, "finetune.epochs": 50}``.
        max_epochs: the largest number of epochs in each stage.
        seed: the random seed; the same seed gives the same model on the same machine.
        device: ``cpu``, ``cuda``, or ``auto``: a GPU where there is one.
        progress: show training on the terminal.

    Raises:
        ConfigError: for an unknown preset, key or device, or a value that does not fit.
    """

    def __init__(
        self,
        preset: str = "default",
        changes: Mapping[str, Any] | None = None,
        *,
        model: str = "adrec",
        max_epochs: int | None = None,
        seed: int = DEFAULT_SEED,
        device: str = "auto",
        progress: bool = False,
    ) -> None:
        self.model = make_model(model, preset, changes, max_epochs)
        self._model_name = model
        self.seed, self.device, self.progress = check_seed(seed), find_device(device), progress
        self._frame: FrameKind = "polars"
        self._dataset: Dataset | None = None
        self._info: RunInfo | None = None
        self._trained: Model | None = None

    @property
    def config(self) -> Settings:
        """The model's configuration."""
        return self.model.config

    def __repr__(self) -> str:
        preset, seed, dataset = self.model.config.preset, self.seed, self._dataset
        state = f"trained on {dataset.info.name!r}" if dataset else "not trained"
        return f"<ADRec model={self._model_name!r} preset={preset!r} seed={seed}, {state}>"

    def fit(
        self,
        interactions: Any,
        *,
        recipe: str | None = None,
        run: str | Path | None = None,
        **options: Unpack[PreparationOptions],
    ) -> ADRec:
        """Train on the training part of the split: by default, all interactions of a user except the last two.

        :meth:`refit` then trains on all interactions, for production.

        Args:
            interactions: a pandas, polars or pyarrow table, files, the folder of a prepared data set, or a
                :class:`~adrec.data.dataset.Dataset`.
            recipe: the name of a known data set, which says how its files are read.
            run: a folder in which each epoch is recorded. If it holds an unfinished run of the same data, settings
                and seed, training resumes. :meth:`load` and every ``adrec`` command read a finished run.
            **options: preparation options: ``user``, ``item``, ``time``, ``min_user``, ``split`` and the other fields
                of :class:`~adrec.data.preparation.Preparation`. A prepared data set takes no options.

        Raises:
            DataError: for a table that cannot be used; the sentence says where and what to do.
            ConfigError: for an unknown option, or an option of :class:`ADRec` itself.
            RunError: where ``run`` holds a finished run, or one of other data, settings or seed.
        """
        misplaced = [name for name in options if name in inspect.signature(ADRec).parameters]
        if misplaced:
            raise ConfigError(f"{misplaced[0]} is an option of ADRec, not of fit: ADRec({misplaced[0]}=..).fit(..).")
        dataset = prepared(interactions, recipe, options)
        self._frame = frame_kind(interactions)
        self._train(self.model, dataset, dataset.info.split, None if run is None else Path(run))
        return self

    def refit(self) -> ADRec:
        """Retrain on all interactions with the chosen numbers of epochs, for production. Nothing is held out."""
        dataset, _, info = self._fitted()
        self._train(type(self.model)(refit_config(self.model.config, info.stages)), dataset, "none")
        assert self._info is not None
        self._info = replace(self._info, temperature=info.temperature)
        return self

    def _train(self, untrained: Model, dataset: Dataset, split_name: str, path: Path | None = None) -> None:
        model = type(untrained)(untrained.config)
        self._info = train(
            model,
            dataset,
            split_name,
            path,
            seed=self.seed,
            model=self._model_name,
            frame=self._frame,
            device=self.device,
            progress=self.progress,
        )
        self._dataset, self._trained = dataset, model

    def recommend(
        self,
        users: Iterable[Any] | None = None,
        histories: Sequence[Iterable[Any]] | None = None,
        k: int = 10,
        *,
        seen: SeenOrData = "data",
        seen_within: str | timedelta | None = None,
        items: Any = None,
        exclude: Any = None,
        per_category: int | None = None,
        categories: Mapping[Any, Any] | None = None,
        diversity: float = 0.0,
        explain: int = 0,
        on_unknown: Literal["error", "skip"] = "error",
    ) -> Any:
        """Recommend k items to each user of the data set, or for each history of a new user.

        Args:
            users: user ids; all users by default. Their whole history is used, held-out interactions included.
            histories: instead of users: lists of item ids, oldest first.
            k: the number of items for each user or history.
            seen: ``keep`` or ``leave-out`` the items of the history; by default as people return to items in the data
                or not (``fit(.., seen=..)`` decides otherwise).
            seen_within: leave out only what the user had within this time before the end of the data, such as ``30d``.
            items: recommend only these: ids for all, or a table with a user and an item column for each user.
            exclude: never recommend these, in the same forms.
            per_category: the largest number of items of one category.
            categories: the category of items by id; items without one are not limited.
            diversity: 0..1, how much an item loses for resembling items above it; 0 is the most probable list
                (:mod:`adrec.inference.diversity`).
            explain: the number of items of the history that are named for each item, with what each adds to its score:
                columns ``because_1``, ``change_1`` and so on.
            on_unknown: ``error`` or ``skip`` for users who are not in the data set.

        Returns:
            A table of the kind that ``fit`` was given (polars for a path): the user (or ``history``, its position) and
            the item, under the names of their columns in the data, ``score``, ``rank`` (from 1), ``source``
            (``popular`` if no item of the history is known, else ``model``) and ``confidence``: the probability that
            the item is the next one, given that the next one is among the items that may be recommended; null where it
            is not known. A warning reports skipped users and items.

        Raises:
            DataError: for unknown users, or if no item may be recommended.
            ConfigError: where both users and histories are given, k is below 1, or a rule does not fit the model or the
                data.
        """
        if users is not None and histories is not None:
            raise ConfigError("recommend takes users or histories, not both; call it twice.")
        if is_frame(histories):
            raise ConfigError(
                "histories are lists of item ids, oldest first, and a table was given; group its items by person."
            )
        if is_frame(categories):
            raise ConfigError("categories are a mapping of item id to category, such as {'sku-001': 'tea'}.")
        recommender = self.recommender()
        columns = recommender.dataset.info.columns
        rules = Rules(
            seen=seen,
            seen_within=seen_within,
            items=read_rules(items, columns) if is_frame(items) else ids(items),
            exclude=read_rules(exclude, columns) if is_frame(exclude) else ids(exclude),
            per_category=per_category,
            categories=categories,
            diversity=diversity,
        )
        if histories is not None:
            result = recommender.for_histories([ids(each) or [] for each in histories], k, explain=explain, **rules)
        else:
            result = recommender.for_users(ids(users), k, on_unknown=on_unknown, explain=explain, **rules)
        return self._told(result)

    def score(self, pairs: Any) -> Any:
        """Return the model's score of each pair of a table with a user and an item column, in its order.

        A score is null if the item, or every item of the user's history, is unknown; scores of one user can be
        compared. Raises :class:`DataError` for a missing column or value.
        """
        recommender = self.recommender()
        return self._told(recommender.score(read_pairs(pairs, recommender.dataset.info.columns)))

    def similar_items(self, items: Iterable[Any], k: int = 10) -> Any:
        """Return the k items nearest to each of ``items`` by the cosine of their embeddings.

        The table has the item, ``similar_item``, ``score`` and ``rank``. Raises :class:`DataError` for
        an item that is not in the catalogue, and :class:`ConfigError` for a model without item vectors.
        """
        dataset, model, _ = self._fitted()
        if model.item_vectors is None:
            raise ConfigError(f"{model.name} has no item vectors, so it does not say which items are alike.")
        return as_kind(self._frame, similar_items(dataset, model.item_vectors, ids(items) or [], k))

    def evaluate(
        self, part: str = "test", *, cutoffs: Sequence[int] = DEFAULT_CUTOFFS, seen: SeenOrData = "data"
    ) -> Evaluation:
        """Return metrics with intervals on the held-out ``validation`` or ``test`` interactions.

        Seen items are ranked or left out as :meth:`recommend` does; ``seen="keep"`` ranks them, as the papers do.

        Raises :class:`UserError` after :meth:`refit`, which holds nothing out.
        """
        dataset, model, info = self._fitted()
        if info.split == "none":
            raise UserError("this model was trained on all interactions, so there is nothing held out to evaluate on.")
        if dataset.fingerprint != info.data_fingerprint:
            raise UserError(
                "this model was trained on older data than these, so they cannot evaluate it; fit a new one."
            )
        return evaluate(model, dataset, info.split_of(dataset), part, cutoffs=cutoffs, seen=seen)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model and its data set as a folder that :meth:`load` and every ``adrec`` command read."""
        dataset, model, info = self._fitted()
        kind = RUN if overwrite else None
        check_folder(Path(path), overwrite=kind, overwriting="pass overwrite=True", kind=RUN)
        with atomic_folder(Path(path), overwrite=kind) as folder:
            digest = write_weights(folder / "weights.safetensors", model)
            info = replace(info, data="data", data_beside="data", weights_digest=digest, metrics_digest=NO_ROWS)
            write_identity(folder, model.config, info)
            write_dataset(dataset, folder / "data")

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        model: type[Model] | str | None = None,
        data: str | Path | None = None,
        device: str = "auto",
        num_inference_steps: int | None = None,
        sampler: Sampler | None = None,
        frame: FrameKind | None = None,
    ) -> ADRec:
        """Load a saved model or a run folder.

        Args:
            path: what :meth:`save`, ``adrec train`` or ``adrec refit`` wrote.
            model: the class of your own model, or ``"module:Class"``. Names in the folder's files are never imported.
            data: the path of its data set, if it was moved, or a newer data set prepared with its vocabulary.
            device: ``cpu``, ``cuda`` or ``auto``.
            num_inference_steps: denoising steps, from 1 to T; the configured number by default.
            sampler: ``ancestral`` or ``ddim``; the configured one by default.
            frame: the kind of table that is returned, ``pandas``, ``polars`` or ``pyarrow``; by default the kind of
                table that it was trained on, polars for a file.

        Raises:
            ConfigError: for a number of steps outside 1 to T, or a model without diffusion.
            RunError: if there is no finished run, or its files are damaged.
            DataError: if the data set is missing or is a different one.
        """
        run = Run.open(Path(path), find_model(model, imports=True) if isinstance(model, str) else model)
        loaded = cls(seed=run.info.seed, device=device)
        loaded._model_name = run.info.model
        loaded._info, loaded._frame = run.info, checked_kind(frame or run.info.frame)
        trained = run.model(loaded.device)
        trained.with_inference(num_inference_steps, sampler)
        loaded.model = loaded._trained = trained
        loaded._dataset = run.dataset(Path(data) if data else None, newer=True)
        return loaded

    def recommender(self, *, onnx: str | Path | None = None, threads: int = 1) -> Recommender:
        """Return the engine behind :meth:`recommend`, which works on lists and polars tables.

        Args:
            onnx: what ``adrec export`` wrote of this run: ONNX Runtime then computes the scores of
                :meth:`Recommender.one`, in about half of the time.
            threads: the number of CPU threads of ONNX Runtime.

        Raises:
            ConfigError: for an export of another run, a model that cannot be exported, or without the extra ``onnx``.
            RunError: if ``onnx`` is no export.
        """
        dataset, model, info = self._fitted()
        found = Recommender(model, dataset, info.temperature, info.seen)
        if onnx is not None:
            found.engine.use_onnx(Path(onnx), info.weights_digest, threads)
        return found

    def _fitted(self) -> tuple[Dataset, Model, RunInfo]:
        if self._dataset is None or self._trained is None or self._info is None:
            raise UserError("this model is not trained yet; call fit(interactions) first, or ADRec.load(path).")
        return self._dataset, self._trained, self._info

    def _told(self, result: Recommendations) -> Any:
        return as_kind(self._frame, told(result.table, result.notes))
