"""Roll-outs with cached keys and values against the network on whole histories; greedy cover against a slow one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from adrec.config.adrec import preset
from adrec.data.batch import history_batch
from adrec.data.dataset import write_dataset
from adrec.data.prepare import prepare
from adrec.nn.adrec import ADRecNetwork
from adrec.nn.base import make_network
from benchmarks.futures import Windows, windows
from benchmarks.rollouts import RollOuts
from benchmarks.slates import cover, main, measured
from command import adrec
from conftest import cyclic_table

HISTORIES = [[1, 2, 3], [4], [5, 6, 7, 1, 2, 3, 4, 6]]


@pytest.mark.parametrize("sink", [True, False])
def test_roll_outs_predict_as_the_network_on_the_longer_history(sink: bool) -> None:
    small = {"hidden_size": 16, "num_heads": 2, "max_length": 10_000, "model.attend_padding": sink}
    network = make_network(ADRecNetwork, preset("default", small).model, 7)
    network.initialize(torch.Generator().manual_seed(0))

    def expected(lists: list[list[int]]) -> torch.Tensor:
        ends = np.cumsum([len(each) for each in lists])
        flat = np.array([item for each in lists for item in each])
        batch = history_batch(flat, ends - [len(each) for each in lists], ends, 10_000)
        return network.predict(batch, lambda _: torch.zeros(len(lists), 16))

    ends = np.cumsum([len(each) for each in HISTORIES])
    flat = np.array([item for each in HISTORIES for item in each])
    rolled = RollOuts(network, history_batch(flat, ends - [len(each) for each in HISTORIES], ends, 10_000))
    torch.testing.assert_close(rolled.query, expected(HISTORIES), rtol=0, atol=1e-5)
    appended = torch.tensor([[1, 2], [3, 4], [5, 6]]), torch.tensor([[7, 7], [1, 2], [3, 5]])
    for position in range(2):
        found = rolled.extend(appended[position], position)
        for sample in range(2):
            lists = [
                [*history, *(int(each[user, sample]) for each in appended[: position + 1])]
                for user, history in enumerate(HISTORIES)
            ]
            gap = (found[:, sample] - expected(lists)).abs().max()
            # The history's own tokens see as many paddings as before the items were appended: few of so many.
            assert gap < 1e-3


def test_greedy_cover_takes_what_most_futures_still_miss() -> None:
    p = torch.rand(3, 5, 8, generator=torch.Generator().manual_seed(1)) * 0.7
    found = cover(p, 3)
    for row in range(3):
        chosen: list[int] = []
        for _ in range(3):
            missed = [float((1 - p[row, :, [*chosen, item]]).prod(1).mean()) for item in range(8)]
            chosen.append(min((item for item in range(8) if item not in chosen), key=lambda item: missed[item]))
        assert found[row].tolist() == chosen
    sure = torch.zeros(1, 4, 6)
    sure[0, [0, 1, 2, 3], [0, 0, 0, 4]] = 1
    assert sorted(cover(sure, 2)[0].tolist()) == [0, 4], "the second covers the future that the first misses"


def test_set_metrics_of_known_lists() -> None:
    some = Windows(np.arange(1, 13), np.array([0, 0, 6]), np.array([2, 3, 8]), np.array([0, 0, 1]), 2)
    assert some.futures.tolist() == [[3, 4], [4, 5], [9, 10]]
    lists = np.array([[3, 4, *range(20, 28)], list(range(20, 30)), [10, *range(20, 29)]])
    found = measured(lists, some, torch.eye(30), 29)
    assert found["any"].tolist() == [0.5, 1.0] and found["recall"].tolist() == [0.5, 0.5]
    assert found["diversity"] == pytest.approx(1.0) and found["coverage"] == 13 / 29


def test_windows_have_the_whole_horizon_in_the_part() -> None:
    from adrec.data.split import make_split

    dataset = prepare(cyclic_table(20, 12), split="ratio:0.4,0.3,0.3")
    split = make_split(dataset, None)
    found = windows(dataset, split, "test", 2, 2)
    counts = np.bincount(split.test.users, minlength=dataset.num_users)
    assert sorted(set(found.users.tolist())) == np.flatnonzero(counts >= 2).tolist()
    for user, end in zip(found.users, found.ends, strict=True):
        assert dataset.offsets[user + 1] - counts[user] <= end <= dataset.offsets[user + 1] - 2


@pytest.mark.slow
def test_the_whole_comparison_on_a_small_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(prepare(cyclic_table(80, 300), split="ratio:0.4,0.3,0.3"), tmp_path / "d")
    small = ("--set", "hidden_size=16", "--set", "num_heads=2", "--set", "max_length=12")
    adrec("train", "d", "--out", "run", "--max-epochs", "2", *small, cwd=tmp_path)
    main(tmp_path / "run", horizon=2, samples=8, json_file=tmp_path / "out.json")
    shown = capsys.readouterr().out
    for family in ("next item", "MMR", "DPP", "independent heads", "masked diffusion", "continuous", "roll-outs"):
        assert family in shown
    assert (tmp_path / "out.json").exists()
    main(tmp_path / "run", horizon=2, ways=["MMR", "next item"])
    shown = capsys.readouterr().out
    assert "MMR 0.4" in shown and "validation loss" not in shown, "no head is trained where none is asked for"
