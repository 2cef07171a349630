"""Which measure of a ranking's uncertainty tells how well a user is served: ``python -m benchmarks.uncertainty RUN..``.

For each run of ADRec with diffusion, on the test part and with the items of the history left out: the rank correlation
of each measure with the held-out item's rank, and NDCG@20 of the half of the users that each measure trusts most. Then
the reliability of the confidence of recommended items: what is said, and the share that is hit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from adrec.data.batch import PackedBatch
from adrec.diagnose.contribution import SampleMean
from adrec.diagnose.structure import rank_correlation
from adrec.evaluate.metrics import Float64s, values
from adrec.evaluate.ranking import held_out, ranking
from adrec.inference.confidence import fitted_temperature
from adrec.inference.scorer import Histories, scored_batches, seen, top_k
from adrec.inference.scores import Masked
from adrec.models.network import NetworkModel, NetworkScorer
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.base import last_tokens
from adrec.runs.folder import Run
from adrec.utils.errors import UserError
from adrec.utils.files import atomic_file
from benchmarks.common import JsonFile, print_table, report, run

METRIC = "ndcg@20"
SAMPLES = 8  # of the denoised last token, and passes with dropout
RESAMPLES = 2000
GREY, OURS = "#8a8f98", "#c05621"  # legible on white and on black
ENDS = (1e-3, 1.0)  # of the chart
FEWEST = 20  # items of a bin in the chart
BINS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # ends of the bins of confidence


class DropoutScorer(NetworkScorer):
    """Scores with the mean of several passes with dropout, and keeps their spread (MC dropout, Gal 2016).

    Attributes:
        spread: of the last batch: the root mean square distance of a user's passes from their mean, over its length.
    """

    def __init__(self, network: ADRecNetwork, passes: int) -> None:
        super().__init__(network)
        self.passes, self.rng, self.spread = passes, torch.Generator().manual_seed(0), np.empty(0)

    @torch.no_grad()
    def __call__(self, batch: PackedBatch) -> Any:
        """Return the scores of the batch's histories."""
        network, found = self.network, []
        for _ in range(self.passes):
            outputs = network(batch, network.draw(batch, self.rng), self.rng)
            found.append(last_tokens(outputs.x0_hat, batch))
        stacked = torch.stack(found)  # [passes, B, D]
        mean = stacked.mean(0)
        distance = (stacked - mean).square().sum(-1).mean(0).sqrt()
        self.spread = (distance / mean.norm(dim=-1)).double().numpy()
        return network.scored(mean, batch)


def softmax_measures(scorer: NetworkModel, histories: Histories) -> tuple[Float64s, Float64s]:
    """Return the entropy and the largest probability of each history's softmax over the items it has not seen."""
    entropy, largest = np.empty(len(histories)), np.empty(len(histories))
    for chosen, scores in scored_batches(scorer, histories):
        block = scores.block(slice(1, scorer.num_items + 1))
        rows, items = seen(histories, chosen)
        Masked.of(rows, items - 1).apply(block, slice(0, scorer.num_items))
        log_p = torch.log_softmax(block.double(), 1)
        p = log_p.exp()
        entropy[chosen] = -(p * log_p.where(p > 0, 0.0)).sum(1).numpy()
        largest[chosen] = p.max(1).values.numpy()
    return entropy, largest


def spread_of(scorer: SampleMean | DropoutScorer, histories: Histories) -> Float64s:
    """Return the spread of each history."""
    found = np.empty(len(histories))
    for chosen, _ in scored_batches(scorer, histories):
        found[chosen] = scorer.spread
    return found


def measured(path: Path, part: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each measure of a run."""
    opened = Run.open(path)
    model, dataset = opened.model(), opened.dataset()
    assert isinstance(model, NetworkModel) and isinstance(model.network, ADRecNetwork)
    network = model.network
    histories, items = held_out(dataset, opened.split(dataset).targets(part))
    ranks = ranking(model, histories, items, filter_seen=True).ranks
    gains, steps = values(METRIC, ranks), network.config.num_train_timesteps
    entropy, largest = softmax_measures(model, histories)
    uncertainty = {
        "entropy of the softmax": entropy,
        "1 - largest probability": 1 - largest,
        "short history": -(histories.ends - histories.starts).astype(np.float64),
        f"spread of {SAMPLES} samples, {steps} steps": spread_of(
            SampleMean(network, range(SAMPLES), num_steps=steps), histories
        ),
        f"spread of {SAMPLES} passes with dropout": spread_of(DropoutScorer(network, SAMPLES), histories),
    }
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(ranks), size=(RESAMPLES, len(ranks)))
    for name, measure in uncertainty.items():
        order = np.argsort(measure + 1e-12 * rng.random(len(measure)), kind="stable")
        trusted = np.zeros(len(ranks), dtype=bool)
        trusted[order[: len(ranks) // 2]] = True
        weights = trusted[drawn]
        resampled = (gains[drawn] * weights).sum(1) / weights.sum(1)
        low, high = np.quantile(resampled, [0.025, 0.975])
        yield {
            "data": dataset.info.name,
            "measure": name,
            "correlation": round(rank_correlation(measure, ranks.astype(np.float64)) or 0.0, 3),
            "all": round(100 * gains.mean(), 2),
            "half": round(100 * gains[trusted].mean(), 2),
            "interval": f"{100 * low:.2f} to {100 * high:.2f}",
        }


def reliability(path: Path, part: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each bin of the confidence of the first 20 items, without the items of the history."""
    opened = Run.open(path)
    model, dataset = opened.model(), opened.dataset()
    split = opened.split(dataset)
    temperature = fitted_temperature(model, *held_out(dataset, split.validation))
    histories, items = held_out(dataset, split.targets(part))
    best = top_k(model, histories, 20, temperature=temperature)
    said, hit = best.confidence.ravel().astype(np.float64), (best.items == items[:, None]).ravel()
    for low, high in itertools.pairwise(BINS):
        inside = (said >= low) & (said < high)
        if inside.any():
            share = hit[inside].mean()
            error = 1.96 * np.sqrt(share * (1 - share) / inside.sum())
            yield {
                "data": dataset.info.name,
                "temperature": round(temperature or 0.0, 3),
                "confidence": f"{low} to {high}",
                "items": int(inside.sum()),
                "said": round(float(said[inside].mean()), 4),
                "hit": round(float(share), 4),
                "interval": f"{max(0.0, share - error):.4f} to {share + error:.4f}",
            }


def draw_reliability(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the share that is hit, with 95 % intervals, against the confidence: a panel for each data set, as SVG."""
    from matplotlib import rc_context  # noqa: PLC0415 - of the extra `plots`
    from matplotlib.figure import Figure  # noqa: PLC0415

    names = list(dict.fromkeys(row["data"] for row in rows if row["items"] >= FEWEST))
    if not names:
        raise UserError(f"no bin of confidence has {FEWEST} items; there is nothing to draw.")
    with rc_context({"svg.hashsalt": "adrec"}):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            own = [row for row in rows if row["data"] == name and row["items"] >= FEWEST]
            said, hit = ([row[key] for row in own] for key in ("said", "hit"))
            ends = np.array([[float(end) for end in row["interval"].split(" to ")] for row in own])
            below, above = np.maximum(0, hit - ends[:, 0]), np.maximum(0, ends[:, 1] - hit)
            axes.errorbar(said, hit, yerr=[below, above], marker="o", color=OURS, linewidth=1.4, markersize=4)
            axes.plot(ENDS, ENDS, color=GREY, linewidth=1, linestyle="--")
            axes.set(xscale="log", yscale="log", xlim=ENDS, ylim=ENDS, xlabel="confidence", ylabel="share that is hit")
            axes.set_title(name, fontsize=10, color=GREY)
            axes.tick_params(colors=GREY, labelsize=8, which="both")
            axes.spines[["top", "right"]].set_visible(False)
            for each in (*axes.spines.values(), axes.xaxis.label, axes.yaxis.label):
                each.set_color(GREY)
            axes.grid(alpha=0.25)
        with atomic_file(path) as file:
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})


def main(
    runs: Annotated[list[Path], typer.Argument(help="Runs of ADRec with diffusion.")],
    part: Annotated[str, typer.Option(help="validation or test.")] = "test",
    json_file: JsonFile = None,
    chart: Annotated[Path | None, typer.Option(help="Draw the reliability of the confidence here, as SVG.")] = None,
) -> None:
    """Compare measures of uncertainty."""
    rows = [row for path in runs for row in measured(path, part)]
    title = f"rank correlation of uncertainty and rank; {METRIC} x 100 of all and of the trusted half ({part} part)"
    print_table(
        "reliability of the confidence", (reliable := [row for path in runs for row in reliability(path, part)])
    )
    if chart is not None:
        draw_reliability(reliable, chart)
    report(title, rows, {}, json_file, reliability=reliable)


if __name__ == "__main__":
    run(main)
