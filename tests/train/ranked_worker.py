"""What each process of a training in several does in a test: trains, and writes what came out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from adrec.config.adrec import Config
from adrec.data.prepare import prepare
from adrec.data.split import leave_one_out
from adrec.models.adrec import ADRecModel
from adrec.nn.ranks import Ranks
from adrec.runs.fit import fit
from adrec.train.callbacks import Callback
from adrec.train.loop import Trainer
from adrec.utils.platforms import is_started_by_torchrun
from conftest import cyclic_table


class Watcher(Callback):
    """Notes each epoch, and how large this rank's rows are."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.trainers: Any = ()
        self.bytes = 0

    def around(self, trainers: Any) -> Any:
        self.trainers = trainers
        return super().around(trainers)

    def on_epoch_end(self, row: Any) -> None:
        trainer: Trainer = self.trainers[-1]
        assert trainer.network is not None and trainer.optimizer is not None
        weight = trainer.network.item_embedding.weight
        kept = [weight, *(each for each in trainer.optimizer.state[weight].values() if each.dim())]
        if trainer.lazy is not None:
            kept = [trainer.lazy.table.weight, trainer.lazy.table.first, trainer.lazy.table.second]
        self.bytes = sum(each.nbytes for each in kept)
        self.rows.append({"loss": row["loss"], "validation": row.get("validation")})


def main(settings: Path, out: Path) -> None:
    """Train by the ``settings`` and write weights, rows and sizes into ``out``."""
    given = json.loads(settings.read_text())
    torch.set_num_threads(1)
    dataset = prepare(cyclic_table(num_users=given["users"], num_items=given["items"]))
    config = Config.make("default", given["changes"])
    ranks = Ranks.start(torch.device("cpu")) if is_started_by_torchrun() else None
    model, watcher = ADRecModel(config), Watcher()
    fit(model, dataset, leave_one_out(dataset), seed=3, callbacks=[watcher], ranks=ranks)
    rank = 0 if ranks is None else ranks.rank
    (out / f"rank-{rank}.json").write_text(json.dumps({"rows": watcher.rows, "bytes": watcher.bytes}))
    if rank == 0:
        torch.save(dict(model.state()), out / "weights.pt")
    if ranks is not None:
        ranks.end()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
