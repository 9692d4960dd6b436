"""Two processes, whose groups straddle them, give the advantages of one."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import chain, groupby
from pathlib import Path

import pytest
import torch

import stepcredit as sc
from stepcredit.data.files.reading import read_rows
from stepcredit.data.streams import Stream
from stepcredit.engines.trl.distributed import RankData, concat_ranks
from stepcredit.errors import EngineError

SCRIPT = Path(__file__).with_name("two_processes.py")
ALONE = [sys.executable]
TWO = [*ALONE, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv-backend", "c10d"]
TWO += ["--rdzv-endpoint", "127.0.0.1:0"]


def records(command, folder):
    """What each process of a run recorded, by rank."""
    folder.mkdir()
    done = subprocess.run(
        [*command, str(SCRIPT), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(path) for path in sorted(folder.glob("rank-*.pt"))]


def test_two_processes_give_the_advantages_of_one(tmp_path):
    (alone,) = records(ALONE, tmp_path / "one")
    pair = records(TWO, tmp_path / "two")
    assert alone["world"] == 1
    assert [(record["rank"], record["world"]) for record in pair] == [(0, 2), (1, 2)]
    assert len(alone["generations"]) == len(pair[0]["generations"]) == 2
    for whole, left, right in zip(
        alone["generations"], pair[0]["generations"], pair[1]["generations"], strict=True
    ):
        for name in ("ids", "prompts", "groups"):
            assert whole[name] == left[name] + right[name]
        assert left["groups"][-1] == right["groups"][0] == 1
        assert left["width"] < right["width"]
        close_by_group(whole, left["advantages"] + right["advantages"])
        assert left["table"] == right["table"] == pytest.approx(whole["table"], abs=1e-6)
        means = [sum(row) / len(row) for row in whole["advantages"]]
        assert whole["table"] == pytest.approx(means, abs=1e-6)
    written = [kept(tmp_path / folder) for folder in ("one", "two")]
    assert written[1] == written[0]
    assert [row["token_ids"] for row in written[0]] == alone["generations"][0]["ids"]
    named = [entry for entry in alone["metrics"] if entry]
    assert named
    assert {"stepcredit/filler_gap", "stepcredit/truncated_share"} <= named[0].keys()
    assert named[0]["stepcredit/repeated_step_share"] > 0
    assert [entry for entry in pair[0]["metrics"] if entry] == [pytest.approx(e) for e in named]


def kept(folder):
    """The first generation's rows, without their advantages."""
    rows = list(read_rows(folder / "output" / "rollouts" / "rollouts-000000.jsonl"))
    return [{name: row[name] for name in row if name != "advantages"} for row in rows]


def close_by_group(whole, rows):
    """To 2^-23 of each group's largest, which is above 0."""
    at = 0
    for _, members in groupby(whole["groups"]):
        size = len(list(members))
        expected = torch.tensor([*chain(*whole["advantages"][at : at + size])])
        found = torch.tensor([*chain(*rows[at : at + size])])
        largest = expected.abs().max()
        assert largest > 0
        assert (found - expected).abs().max() <= largest * 2**-23
        at += size


def rank_data(**changes):
    return RankData(**{"lengths": [2], "trained": [True], **changes})


def test_the_data_of_processes_are_joined_in_order():
    one = rank_data(
        process={"a": sc.Steps([[0, 1]], [[0.1, 0.2]])},
        logprobs={"student": sc.Tokens([[-1.0, -2.0]])},
        format_ok=[True],
        step_ends=Stream._of(values=torch.tensor([1]), counts=torch.tensor([1])),
        truncated=[True],
        texts=["ab"],
        steps=[["a", "b"]],
    )
    two = rank_data(
        lengths=[3],
        trained=[False],
        process={"a": sc.Steps([[2]], [[0.3]])},
        logprobs={"student": sc.Tokens([[-3.0, -4.0, -5.0]])},
        format_ok=[False],
        step_ends=Stream._of(values=torch.tensor([0, 2]), counts=torch.tensor([2])),
        truncated=[False],
        texts=["cd"],
        steps=[["cd"]],
    )
    both = concat_ranks([one, two])
    assert (both.lengths, both.trained, both.format_ok) == ([2, 3], [True, False], [True, False])
    assert (both.truncated, both.texts) == ([True, False], ["ab", "cd"])
    assert both.steps == [["a", "b"], ["cd"]]
    assert both.step_ends.values.tolist() == [1, 0, 2]
    assert both.tokens is None
    assert both.process["a"].ends.tolist() == [0, 1, 2]
    assert both.process["a"].counts.tolist() == [2, 1]
    assert both.process["a"].values.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert both.logprobs["student"].values.tolist() == [-1.0, -2.0, -3.0, -4.0, -5.0]


@pytest.mark.parametrize(
    ("one", "two", "line"),
    [
        (
            {"a": sc.Tokens([[0.1, 0.2]])},
            {"b": sc.Tokens([[0.1, 0.2]])},
            "process_signal: gave a: Tokens on one process, b: Tokens on another",
        ),
        (
            sc.Tokens([[0.1, 0.2]]),
            sc.Steps([[1]], [[0.1]]),
            "process_signal: gave Tokens on one process, Steps on another",
        ),
    ],
)
def test_streams_that_differ_between_processes_are_refused(one, two, line):
    with pytest.raises(EngineError) as refused:
        concat_ranks([rank_data(process=one), rank_data(process=two)])
    assert str(refused.value) == line
