"""Lists for the next H items of a user, judged together: ``python -m benchmarks.slates RUN --horizon 5``.

RUN is a run of the default on a split with several held-out items a user, such as ``ratio:0.4,0.3,0.3``. Lists of ten
items come from the network's own ranking, from MMR and DPP on it, from H independent heads, from token-level diffusion
over the H slots (masked and continuous) and from auto-regressive roll-outs. The latter three choose the items that
together cover most of S sampled futures. Settings are chosen on the validation part by the share of histories with a
hit, and judged on the test part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Generator, Tensor

from adrec.evaluate.significance import paired_difference
from adrec.inference.diversity import Diverse
from adrec.inference.scorer import Top
from adrec.models.network import NetworkModel
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.diffusion import unit
from adrec.nn.kernels.layout import NEVER
from adrec.runs.folder import Run
from adrec.utils.errors import UserError
from benchmarks.common import JsonFile, Threads, print_table, report, run
from benchmarks.futures import TIMESTEPS, FutureHead, Futures, Kind, Windows, windows
from benchmarks.rollouts import RollOuts

K, POOL, AT_ONCE = 10, 200, 64  # length of a list, candidates, histories at a time


@dataclass
class Given:
    """Some histories: what the network says, and the items that are left out."""

    window: Any
    query: Tensor
    condition: Tensor
    seen: Tensor


def cover(p: Tensor, k: int = K) -> Tensor:
    """Return the k candidates that greedily cover most of the sampled futures, int64 [b, k].

    ``p`` [b, S, C] is the probability that a candidate is in a future; given the future, candidates are independent.
    """
    rows, missed = torch.arange(len(p)), torch.full(p.shape[:2], 1 / p.shape[1])
    free, chosen = torch.ones(len(p), p.shape[2]), []
    for _ in range(k):
        best = (torch.einsum("bs,bsc->bc", missed, p) * free).argmax(1)
        chosen.append(best)
        free[rows, best] = -1.0
        missed = missed * (1 - p[rows, :, best])
    return torch.stack(chosen, 1)


def any_slot(p: Tensor) -> Tensor:
    """Return the probability that an item is in any of the independent slots ``p`` [.., H, C]."""
    return 1 - torch.log1p(-p.clamp_max(1 - 1e-6)).sum(-2).exp()


class Lists:
    """Each way of making lists, for histories of one network."""

    def __init__(
        self, network: ADRecNetwork, heads: Mapping[Kind, FutureHead], samples: int, temperature: float | None = None
    ) -> None:
        self.network, self.heads, self.samples, self.temperature = network, heads, samples, temperature
        self.embedding = network.item_embedding.weight.detach()
        self.scaled = self.embedding / self.embedding[1:].std()
        self.rng = Generator().manual_seed(3)

    def _logits(self, vectors: Tensor, seen: Tensor) -> Tensor:
        return (vectors @ self.embedding.T).masked_fill(seen, NEVER)

    def own(self, given: Given) -> Tensor:
        """The most probable next items."""
        return self._logits(given.query, given.seen).topk(K, 1).indices

    def mmr(self, given: Given, diversity: float) -> Tensor:
        """Maximal marginal relevance, as in ``recommend --diversity``."""
        choice = Diverse(self.embedding.numpy(), diversity, self.temperature)
        scores, items = self._logits(given.query, given.seen).topk(min(choice.candidates(K), self.network.num_items), 1)
        items = torch.where(scores > NEVER, items, 0)
        top = Top(items.numpy(), scores.numpy(), np.full(scores.shape, np.nan, dtype=np.float32))
        return torch.from_numpy(choice(top, K).items)

    def dpp(self, given: Given, power: float) -> Tensor:
        """The greedy mode of a determinantal point process (Chen et al. 2018); quality is probability ** power."""
        p, items = self._logits(given.query, given.seen).softmax(1).topk(POOL, 1)
        quality, vectors, rows = (p / p[:, :1]) ** power, unit(self.embedding)[items], torch.arange(len(p))
        left, factors, chosen = quality**2, torch.zeros(len(p), K, POOL), []
        for step in range(K):
            best = left.argmax(1)
            chosen.append(best)
            kernel = torch.einsum("bcd,bd->bc", vectors, vectors[rows, best]) * quality * quality[rows, best][:, None]
            kernel = kernel - torch.einsum("bj,bjc->bc", factors[rows, :, best], factors)
            factors[:, step] = kernel / left[rows, best].clamp_min(1e-12).sqrt()[:, None]
            left = (left - factors[:, step] ** 2).clamp_min(0)
            left[rows, best] = -1.0
        return items.gather(1, torch.stack(chosen, 1))

    def _slots(self, head: FutureHead, given: Given) -> Tensor:
        vectors = head(given.query, given.condition, head.unknown(given.query))  # [b, H, D]
        return self._logits(vectors, given.seen[:, None]).softmax(-1)

    def independent(self, given: Given, kind: Kind = "independent") -> Tensor:
        """The items most probable in any slot, slots being independent."""
        return any_slot(self._slots(self.heads[kind], given)).topk(K, 1).indices

    def masked(self, given: Given, steps: int) -> Tensor:
        """Reveal ``steps`` slots one after the other, then take the other slots' probabilities."""
        head, (b, size), samples = self.heads["masked"], given.query.shape, self.samples
        slots = self._slots(head, given)  # [b, H, V + 1]
        items = any_slot(slots).topk(POOL, 1).indices  # [b, C]
        p = slots.gather(2, items[:, None].expand(-1, head.horizon, -1))  # [b, H, C]
        mass, p = p.sum(-1)[:, None, :, None], p[:, None].expand(-1, samples, -1, -1)
        vectors, scaled = self.embedding[items], self.scaled[items]  # [b, C, D]
        hidden = torch.ones(b, samples, head.horizon, dtype=torch.bool)
        known, drawn = torch.zeros(b, samples, head.horizon, size), torch.zeros(b, samples, POOL)
        for slot in range(steps):
            picked = self._draw(p[:, :, slot] * (1 - drawn))  # [b, S]
            drawn.scatter_(2, picked[..., None], 1.0)
            known[:, :, slot] = scaled.gather(1, picked[..., None].expand(-1, -1, size))
            hidden[:, :, slot] = False
            found = head(given.query, given.condition, head.masked(known, hidden))  # [b, S, H, D]
            logits = torch.einsum("bshd,bcd->bshc", found, vectors).masked_fill(drawn[:, :, None] > 0, NEVER)
            p = logits.softmax(-1) * mass
        rest = any_slot(p[:, :, steps:]) if steps < head.horizon else torch.zeros_like(drawn)
        return items.gather(1, cover(torch.maximum(rest, drawn)))

    def continuous(self, given: Given, steps: int) -> Tensor:
        """Denoise all slots together (DDIM) from S noises, then take the slots' probabilities."""
        head, (b, size) = self.heads["continuous"], given.query.shape
        items = any_slot(self._slots(self.heads["independent"], given)).topk(POOL, 1).indices
        x = torch.randn(b, self.samples, head.horizon, size, generator=self.rng)
        times = torch.linspace(TIMESTEPS - 1, 0, steps + 1).round().long()[:-1]
        for number, t in enumerate(times):
            found = head(given.query, given.condition, head.noised(x, t.expand(x.shape[:-1])))
            p = torch.einsum("bshd,bcd->bshc", found, self.embedding[items]).softmax(-1)
            if number + 1 < steps:
                x0, level, later = (
                    torch.einsum("bshc,bcd->bshd", p, self.scaled[items]),
                    *head.alpha_bars[torch.stack([t, times[number + 1]])],
                )
                x = later.sqrt() * x0 + ((1 - later) / (1 - level)).sqrt() * (x - level.sqrt() * x0)
        return items.gather(1, cover(any_slot(p)))

    def rollouts(self, given: Given, horizon: int) -> Tensor:
        """Sample H items one after the other with the network itself; probable items come first among equals."""
        network = RollOuts(self.network, given.window)
        first = self._logits(network.query, given.seen).softmax(1)  # [b, V + 1]
        taken = given.seen[:, None].expand(-1, self.samples, -1).clone()
        picked = self._draw(first[:, None].expand(-1, self.samples, -1))
        futures = torch.zeros(taken.shape).scatter_(2, picked[..., None], 1.0)
        for position in range(horizon - 1):
            taken.scatter_(2, picked[..., None], True)
            p = self._logits(network.extend(picked, position), taken).softmax(-1)
            picked = self._draw(p)
            futures.scatter_(2, picked[..., None], 1.0)
        return cover(torch.maximum(futures, 1e-3 * first[:, None]))

    def _draw(self, p: Tensor) -> Tensor:
        """Draw an item of each ``p`` [b, S, C], int64 [b, S]."""
        return torch.multinomial(p.flatten(0, 1) + 1e-12, 1, generator=self.rng).view(p.shape[:2])


def timed(lists: Lists, trainer: Futures, some: Windows, way: Callable[[Given], Tensor]) -> tuple[NDArray[Any], float]:
    """Return the list of each window [n, K], and how many a core second makes."""
    found, spent = [], 0.0
    network = lists.network
    for first in range(0, len(some), AT_ONCE):
        chosen = slice(first, first + AT_ONCE)
        window, seen = some.batch(chosen, network.config.max_length), some.seen(chosen, network.num_items)
        began = time.process_time()
        query, condition = trainer.outputs(window)
        found.append(way(Given(window, query, condition, seen)))
        spent += time.process_time() - began
    return torch.cat(found).numpy(), len(some) / spent


def measured(items: NDArray[Any], some: Windows, vectors: Tensor, num_items: int) -> dict[str, Any]:
    """Return each user's share of histories with a hit, and of the next items that are hit; diversity and coverage."""
    hit = (items[:, :, None] == some.futures[:, None]).any(1)  # [n, H]
    _, users = np.unique(some.users, return_inverse=True)
    listed = unit(vectors)[torch.from_numpy(items)]
    cosines = torch.einsum("nkd,njd->nkj", listed, listed).sum((1, 2)) - K
    count = np.bincount(users)
    return {
        "any": np.bincount(users, hit.any(1)) / count,
        "recall": np.bincount(users, hit.mean(1)) / count,
        "diversity": float(1 - (cosines / (K * (K - 1))).mean()),
        "coverage": len(np.unique(items)) / num_items,
    }


FAMILIES = (
    "next item",
    "MMR",
    "DPP",
    "independent heads",
    "masked diffusion",
    "continuous diffusion",
    "roll-outs",
)
TRAINED: Mapping[Kind, frozenset[str]] = {  # by families; continuous takes the candidates of independent
    "masked": frozenset({"masked diffusion"}),
    "continuous": frozenset({"continuous diffusion"}),
    "independent": frozenset({"independent heads", "continuous diffusion"}),
}


def ways_of(lists: Lists, horizon: int) -> dict[str, dict[str, Callable[[Given], Tensor]]]:
    """Return each family's ways of making lists, by setting."""
    return {
        "next item": {"": lists.own},
        "MMR": {f"{d}": lambda given, d=d: lists.mmr(given, d) for d in (0.02, 0.05, 0.1, 0.2, 0.4)},
        "DPP": {f"{power}": lambda given, power=power: lists.dpp(given, power) for power in (0.5, 1.0, 2.0, 4.0)},
        "independent heads": {"": lists.independent},
        "masked diffusion": {
            f"{n}": lambda given, n=n: lists.masked(given, n) for n in (1, 2, horizon) if n <= horizon
        },
        "continuous diffusion": {f"{n}": lambda given, n=n: lists.continuous(given, n) for n in (1, 4)},
        "roll-outs": {"": lambda given: lists.rollouts(given, horizon)},
    }


@dataclass
class Judge:
    """Measures ways of making lists on the two held-out parts."""

    lists: Lists
    trainer: Futures
    validation: Windows
    test: Windows

    def choose(self, ways: Mapping[str, Callable[[Given], Tensor]]) -> str:
        """Return the setting with the most validation histories that have a hit."""

        def hits(setting: str) -> float:
            items, _ = timed(self.lists, self.trainer, self.validation, ways[setting])
            return float(measured(items, self.validation, self.lists.embedding, 1)["any"].mean())

        return max(ways, key=hits) if len(ways) > 1 else next(iter(ways))

    def tested(self, way: Callable[[Given], Tensor]) -> dict[str, Any]:
        """Return what :func:`measured` finds on the test part, and the speed."""
        items, speed = timed(self.lists, self.trainer, self.test, way)
        return {**measured(items, self.test, self.lists.embedding, self.lists.network.num_items), "speed": speed}


def row_of(name: str, found: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return a row of the table; differences in the share of histories with a hit are paired over users."""
    row = {"list": name, "any hit": f"{100 * found['any'].mean():.2f}", "recall": f"{100 * found['recall'].mean():.2f}"}
    row |= {"diversity": f"{found['diversity']:.3f}", "coverage": f"{found['coverage']:.1%}"}
    row["users/core s"] = f"{found['speed']:.0f}"
    for other, theirs in others.items():
        row[f"less {other}"] = ""
        if theirs is not found:
            gap = paired_difference(found["any"], theirs["any"])
            low, high = 100 * gap.estimate.low, 100 * gap.estimate.high
            row[f"less {other}"] = f"{100 * gap.estimate.mean:+.2f} ({low:+.2f} to {high:+.2f}), p {gap.p:.2g}"
    return row


def main(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="A run of ADRec with diffusion.")],
    horizon: Annotated[int, typer.Option(help="H, the number of next items.")] = 5,
    samples: Annotated[int, typer.Option(help="S, the number of sampled futures.")] = 64,
    ways: Annotated[list[str] | None, typer.Option(help="Only these ways of making lists; repeatable.")] = None,
    threads: Threads = 1,
    json_file: JsonFile = None,
) -> None:
    """Compare lists for the next H items."""
    torch.set_num_threads(threads)
    opened = Run.open(path)
    dataset, model = opened.dataset(), opened.model()
    network = model.network if isinstance(model, NetworkModel) else None
    if type(network) is not ADRecNetwork or not network.uses_noise or network.repeat_projection is not None:
        raise UserError(f"{path} is no plain ADRec with diffusion; name a run of the preset default.")
    if dataset.info.seen == "keep" or network.num_items < max(POOL, 4 * K):
        raise UserError(f"{dataset.info.name} keeps seen items, or has fewer than {POOL} items; this leaves them out.")
    split = opened.split(dataset)
    if split.num_items < dataset.num_items:
        raise UserError(f"the split {split.name!r} holds out items that are unknown to the run; take a ratio split.")
    validation, test = (windows(dataset, split, part, horizon, 2) for part in ("validation", "test"))
    trainer = Futures(network, dataset, split, horizon)
    chosen = [family for family in FAMILIES if ways is None or family in ways]
    kinds: list[Kind] = [kind for kind, families in TRAINED.items() if not families.isdisjoint(chosen)]
    lists = Lists(network, {kind: trainer.train(kind, validation) for kind in kinds}, samples, opened.info.temperature)
    judge, kept, names, diverse = Judge(lists, trainer, validation, test), {}, {}, {}
    with torch.no_grad():
        for family in chosen:
            settings = ways_of(lists, horizon)[family]
            best = judge.choose(settings)
            kept[family], names[family] = judge.tested(settings[best]), f"{family} {best}".strip()
            print(f"{names[family]}: {100 * kept[family]['any'].mean():.2f}", flush=True)
            if family == "MMR":
                diverse = {f"MMR {setting}": judge.tested(way) for setting, way in settings.items()}
    others = {family: kept[family] for family in ("next item", "MMR", "roll-outs") if family in kept}
    given = {"data": dataset.info.name, "H": horizon}
    rows = [{**given, **row_of(names[family], found, others)} for family, found in kept.items()]
    users = len(np.unique(test.users))
    plain = {name: found for name, found in others.items() if name == "next item"}
    spread = [{**given, **row_of(name, found, plain)} for name, found in diverse.items()]
    if spread:
        print_table("MMR by diversity", spread)
    title = f"lists of {K} for the next {horizon} items, x 100: {users} users, {len(test)} histories"
    report(title, rows, {}, json_file, diverse=spread)


if __name__ == "__main__":
    run(main)
