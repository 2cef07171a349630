"""The part of a trainer that saves and restores its whole state, and goes back when training diverges."""

from __future__ import annotations

from dataclasses import asdict

from adrec.config.stage import StageConfig
from adrec.nn.base import SequenceNetwork
from adrec.train.checkpoint import Progress, Snapshot, load_optimizer, optimizer_tensors, with_prefix
from adrec.train.clock import Clock
from adrec.train.divergence import IN_A_ROW
from adrec.train.ema import KeptWeights
from adrec.train.epochs import Epochs
from adrec.train.lazy import EMBEDDING, LazyRows
from adrec.train.step import new_optimizer
from adrec.utils.errors import RunError


class Recovery(Epochs):
    """Saves and restores a trainer; :class:`adrec.train.loop.Trainer` sets what it needs.

    Attributes:
        recover: whether a training that diverges goes back to its last snapshot, at half the learning rate.
    """

    recover: bool
    _clock: Clock

    def new_network(self, stage: StageConfig) -> SequenceNetwork:
        """Return a network for ``stage``, with weights still to be drawn."""
        raise NotImplementedError

    def _tell(self, sentence: str, *, warning: bool = False) -> None:
        for each in self.callbacks:
            each.on_message(sentence, warning=warning)

    def _recover(self, name: str, stage: StageConfig) -> None:
        """Go back to an earlier snapshot at half the learning rate; a second time, end the stage with its best weights.

        Raises :class:`RunError` if there is neither.
        """
        progress, why = self.progress, f"{name} has diverged: {IN_A_ROW} steps in a row had no usable loss or gradient"
        advice = "train anew, with a smaller learning_rate and in another folder"
        if not self.recover:
            raise RunError(f"{why}; {advice}.")
        if progress.stage not in progress.halved and any(each.go_back() for each in self.callbacks):
            self.progress.halved = [*progress.halved, progress.stage]  # the snapshot may be of the stage before
            where = f"epoch {self.progress.epoch} of {self.stages[self.progress.stage][0]}"
            self._tell(f"{why}; it goes back to {where}, at half the learning rate.", warning=True)
        elif self.weights.best:
            progress.diverged = True
            self._tell(f"{why}; its best weights, of epoch {progress.best_epoch}, are kept.", warning=True)
        else:
            raise RunError(f"{why}, and no epoch was validated before; {advice}.")

    def snapshot(self) -> Snapshot:
        """Return everything the rest of the training depends on."""
        progress = self.progress
        progress.spent = self._clock.spent() if progress.step else {}
        tensors = {"generator/order": self.order.get_state(), "generator/rng": self.rng.get_state()}
        tensors |= self.weights.tensors()
        if progress.step:
            tensors |= {"generator/order_before": self.order_before, **with_prefix("totals", self.totals)}
        if self.network is not None and self.optimizer is not None and not self._begins_anew():
            tensors |= with_prefix("network", self.network.state_dict())
            tensors |= with_prefix("optimizer", optimizer_tensors(self.optimizer, self.network))
            tensors |= with_prefix("rows", {} if self.lazy is None else self.lazy.table.tensors())
        return Snapshot(tensors, asdict(self.progress))

    def _begins_anew(self) -> bool:
        """Whether nothing of the network goes on: between two stages, the second of which makes a new one."""
        progress = self.progress
        if progress.epoch or progress.step:
            return False
        return progress.stage == len(self.stages) or self.stages[progress.stage][1].start != "continue"

    def restore(self, snapshot: Snapshot) -> None:
        """Restore the state of ``snapshot``."""
        self.progress, self.network, self.optimizer = Progress(**snapshot.values), None, None
        self.lazy = None
        self._clock = Clock(self.progress.spent)
        self.totals = {name: value.to(self.device, copy=True) for name, value in snapshot.part("totals").items()}
        if "generator/order_before" in snapshot.tensors:
            self.order_before = snapshot.tensors["generator/order_before"].clone()
        self.order.set_state(snapshot.tensors["generator/order"])
        self.rng.set_state(snapshot.tensors["generator/rng"])
        self.weights = KeptWeights.restored(snapshot, self.device)
        weights = snapshot.part("network")
        if weights:
            _, stage = self.stages[self.progress.stage]
            self.network = self.new_network(stage)
            self.network.load_state_dict(weights)
            self.optimizer = new_optimizer(self.network, stage)
            load_optimizer(self.optimizer, self.network, snapshot.part("optimizer"))
            if stage.rows is not None:
                self.lazy = LazyRows.of(self.network, stage, self._current)
                self.lazy.table.load(snapshot.part("rows"))
                self.lazy.table.average = self.weights.average.get(EMBEDDING)
