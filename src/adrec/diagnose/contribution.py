"""The contribution of diffusion to a trained model: inference with and without each part, on the same users.

Four comparisons are made: all T denoising steps with one; the model with itself when x_t and t are set to 0 (if nothing
changes, the diffusion has no function); the mean of several samples with one sample; the sample with the condition, if
the condition ranks. Three further measures apply only to a generative model: the spread of a user's samples, its
correlation with the rank, and the joint coverage of the samples' lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adrec.data.batch import PackedBatch
from adrec.data.dataset import Dataset
from adrec.data.spans import Int64s
from adrec.data.split import Split
from adrec.diagnose.structure import rank_correlation
from adrec.evaluate.metrics import user_values
from adrec.evaluate.ranking import Ranking, held_out, ranking
from adrec.evaluate.significance import Difference, holm_adjusted, paired_difference
from adrec.inference.scorer import Histories, scored_batches
from adrec.models.network import NetworkModel, NetworkScorer
from adrec.nn.ablation.network import blinded, ranked_by_sample
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.noise import HistoryNoise
from adrec.nn.scores import Scores
from adrec.nn.spectrum import Float64s
from adrec.runs.folder import Run
from adrec.utils.errors import ConfigError

METRIC = "ndcg@20"
TOP = 20
SAMPLES = 8


@dataclass(frozen=True)
class Gain:
    """A metric with a part of the diffusion, and without it.

    Attributes:
        part: what was taken away.
        with_it: the metric's mean over users with it.
        without: without it.
        difference: with less without, paired over users; p-values hold together (Holm).
    """

    part: str
    with_it: float
    without: float
    difference: Difference


@dataclass(frozen=True)
class Contribution:
    """What diffusion contributes.

    Attributes:
        metric: that gains are counted in, seen items ranked too.
        samples: how many were drawn for each user.
        gains: of each part.
        spread: the mean over users of the root mean square distance of samples from their mean, over its length.
        spread_and_rank: rank correlation over users of the spread and the held-out item's rank: above 0 where users
            with a wide spread are ranked worse; None where all spreads are alike.
        same_items: the mean share of the first 20 items that two samples of a user have in common.
        coverage_of_one: the share of the catalogue in the first 20 items of one sample, all users together.
        coverage_of_all: in lists of 20 that take the first items of all samples in turn.
        hits_of_all: the hit ratio at 20 of these lists less that of one sample's, paired over users.
    """

    metric: str
    samples: int
    gains: tuple[Gain, ...]
    spread: float
    spread_and_rank: float | None
    same_items: float
    coverage_of_one: float
    coverage_of_all: float
    hits_of_all: Difference

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


class SampleMean(NetworkScorer):
    """Scores with the mean of several samples of a network.

    Args:
        network: what was trained.
        seeds: of the samples.
        num_steps: denoising steps.

    Attributes:
        spread: of the last batch: each user's, [B].
    """

    def __init__(self, network: ADRecNetwork, seeds: range, num_steps: int | None = None) -> None:
        super().__init__(network, seeds[0], num_steps)
        self.seeds = seeds
        self.spread: Float64s = np.empty(0)

    @torch.no_grad()
    def __call__(self, batch: PackedBatch) -> Scores:
        """Return the scores of the batch's histories for every item number."""
        network, device = self.network, self.network.item_embedding.weight.device
        noises = [HistoryNoise(batch, network.config.hidden_size, seed, device) for seed in self.seeds]
        there = batch.to(device)
        samples = torch.stack([network.predict(there, noise, self.num_steps) for noise in noises])  # [S, B, D]
        mean = samples.mean(0)
        distance = (samples - mean).square().sum(-1).mean(0).sqrt()  # [B]
        self.spread = (distance / mean.norm(dim=-1)).double().cpu().numpy()
        return network.scored(mean, there)


@dataclass(frozen=True, eq=False)
class _Held:
    """The held-out interactions that everything is ranked on."""

    histories: Histories
    items: Int64s
    owners: Int64s

    def rank(self, scorer: NetworkScorer, top: int = 0) -> Ranking:
        return ranking(scorer, self.histories, self.items, top=top)

    def values(self, found: Ranking) -> Float64s:
        """Return each user's metric."""
        return user_values([METRIC], found.ranks, self.owners)[:, 0]

    def hits(self, lists: Int64s) -> Float64s:
        """Return whether each user's held-out item is in a list, [m, TOP]."""
        there = np.where((lists == self.items[:, None]).any(1), 0, TOP)
        return user_values([f"hr@{TOP}"], there, self.owners)[:, 0]

    def spread(self, scorer: SampleMean) -> tuple[Float64s, Int64s]:
        """Return the spread of each history of which the model knows something, and which these are."""
        known = self.histories.known(scorer.num_items)
        spoken = np.flatnonzero(known.ends > known.starts)
        found = np.empty(len(spoken))
        for chosen, _ in scored_batches(scorer, Histories(known.items, known.starts[spoken], known.ends[spoken])):
            found[chosen] = scorer.spread
        return found, spoken


def contribution(
    network: ADRecNetwork,
    dataset: Dataset,
    split: Split,
    part: str = "validation",
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    others: Mapping[str, ADRecNetwork] | None = None,
) -> Contribution:
    """Measure what diffusion contributes to a trained ADRec.

    Args:
        network: of the model.
        dataset: the prepared data set.
        split: of it.
        part: the held-out part: ``validation`` or ``test``.
        samples: drawn for each user, 2 or more.
        seed: of the first sample.
        others: networks that were trained in another way, such as without noise, by what the first has over them.

    Raises:
        ConfigError: where nothing is held out.
    """
    if len(split.targets(part).users) == 0:
        raise ConfigError(f"the split {split.name} holds nothing out in {part}; name another part with --on.")
    held = _Held(*held_out(dataset, split.targets(part)), split.targets(part).users)
    longest, seeds = network.config.num_train_timesteps, range(seed, seed + samples)
    own = held.rank(NetworkScorer(network, seed, longest))
    with ranked_by_sample(network):
        one = held.rank(NetworkScorer(network, seed, 1))
        with blinded(network):
            blind = held.rank(NetworkScorer(network, seed, 1))
        singles = [held.rank(NetworkScorer(network, each, longest), TOP) for each in seeds]
        together = SampleMean(network, seeds, longest)
        pairs = {
            f"{longest} steps over one": (singles[0], one),
            "seeing x_t and t": (singles[0], blind),
            f"mean of {samples} samples over one": (held.rank(together), singles[0]),
        }
        spread, spoken = held.spread(together)
    if not network.uses_noise:
        pairs["the sample over the condition"] = singles[0], own
    for name, each in (others or {}).items():
        pairs[name] = own, held.rank(NetworkScorer(each, seed, longest))
    lists = _in_turn(np.stack([each.top for each in singles]))
    return Contribution(
        METRIC,
        samples,
        _gains({name: (held.values(ours), held.values(theirs)) for name, (ours, theirs) in pairs.items()}),
        float(spread.mean()) if len(spread) else 0.0,
        rank_correlation(spread, singles[0].ranks[spoken].astype(np.float64)),
        _in_common(singles[0].top, singles[1].top),
        _coverage(singles[0].top, network.num_items),
        _coverage(lists, network.num_items),
        paired_difference(held.hits(lists), held.hits(singles[0].top)),
    )


def contribution_of_runs(
    path: Path,
    against: Sequence[Path] = (),
    part: str = "validation",
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    data: Path | None = None,
) -> Contribution:
    """Measure what diffusion contributes to the run at ``path``, and what it has over the runs ``against`` it.

    Raises as :func:`contribution`, and :class:`ConfigError` for runs of another data set or split.
    """
    run = Run.open(path)
    network = _network(run)
    if not network.denoises:
        raise ConfigError(f"{path} has no denoiser (model.diffusion is left out): there is no diffusion to measure.")
    dataset = run.dataset(data)
    others = {}
    for each in against:
        other = Run.open(each)
        if (other.info.data_fingerprint, other.info.split) != (run.info.data_fingerprint, run.info.split):
            raise ConfigError(f"{each} was trained on another data set or split than {path}; name one of the same.")
        others[f"over {each}"] = _network(other)
    return contribution(network, dataset, run.split(dataset), part, samples=samples, seed=seed, others=others)


def _network(run: Run) -> ADRecNetwork:
    model = run.model()
    network = model.network if isinstance(model, NetworkModel) else None
    if not isinstance(network, ADRecNetwork):
        raise ConfigError(f"{run.path} is of {model.name}: the contribution of diffusion is measured of adrec alone.")
    return network


def _gains(pairs: Mapping[str, tuple[Float64s, Float64s]]) -> tuple[Gain, ...]:
    found = {name: paired_difference(ours, theirs) for name, (ours, theirs) in pairs.items()}
    adjusted = holm_adjusted(found)
    return tuple(
        Gain(name, float(ours.mean()), float(theirs.mean()), adjusted[name]) for name, (ours, theirs) in pairs.items()
    )


def _in_turn(tops: Int64s) -> Int64s:
    """Return lists that take the first items of all samples, then the second ones, and so on, each item once.

    ``tops`` are the samples' lists, [S, m, TOP]; so are the lists, [m, TOP].
    """
    candidates = tops.transpose(1, 2, 0).reshape(tops.shape[1], -1)  # [m, TOP * S], best first
    lists = np.zeros((tops.shape[1], tops.shape[2]), dtype=np.int64)
    for row, own in enumerate(candidates):
        _, first = np.unique(own, return_index=True)
        chosen = own[np.sort(first)]
        lists[row] = chosen[: tops.shape[2]]
    return lists


def _in_common(one: Int64s, other: Int64s) -> float:
    """Return the mean share of items that two lists of a user have in common."""
    served = one[:, 0] > 0
    shares = [len(np.intersect1d(a, b)) / len(a) for a, b in zip(one[served], other[served], strict=True)]
    return float(np.mean(shares)) if shares else 0.0


def _coverage(lists: Int64s, num_items: int) -> float:
    return len(np.unique(lists[lists > 0])) / num_items
