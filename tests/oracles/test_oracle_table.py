"""The table: its methods, its signals, and methods that normalize over the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import stepcredit as sc
from stepcredit.oracles import (
    CONTESTANTS,
    SIGNALS,
    Contestant,
    Move,
    SignalledGroups,
    World,
    WorldGroups,
    credit_of,
    oracle_table,
)

COIN = World(
    "coin",
    "Two steps of even odds.",
    {
        "start": (Move(1.0, "good"), Move(1.0, 0.0)),
        "good": (Move(1.0, 1.0), Move(1.0, 0.0)),
    },
)


def test_every_method_of_the_library_is_measured() -> None:
    own = {name for name, kind in sc.methods().items() if kind.__module__.startswith("stepcredit")}
    assert {contestant.method for contestant in CONTESTANTS} == own


def test_rows_are_sorted_by_signal_and_outcome_methods_have_one() -> None:
    chosen = [Contestant("pure"), Contestant("grpo"), Contestant("opd")]
    rows = oracle_table(chosen, ["delayed"])
    assert [(row.method, row.signal) for row in rows] == [
        ("exact advantage", "none"),
        ("grpo", "none"),
        *((method, signal) for signal in SIGNALS for method in ("pure", "opd")),
    ]
    noisy = [row for row in rows if row.signal == "noisy"]
    assert all(row.figures["rmse"].standard_error > 0 for row in noisy)
    exact = [row for row in rows if row.signal != "noisy"]
    assert all(figure.standard_error == 0 for row in exact for figure in row.figures.values())


def test_progress_counts_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    oracle_table([Contestant("rloo"), Contestant("pass")], ["delayed"], lambda *at: seen.append(at))
    assert seen == [(number, 5) for number in range(1, 6)]


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("gdpo", {}),
        ("gdpo", {"batch_norm": "token"}),
        ("prime", {}),
        ("pure", {"whiten_batch": True}),
        ("reinforce-plus-plus", {"of": {"pass": {"operator": "center"}}}),
        ("prime", {"norm": "batch"}),
    ],
)
def test_batch_methods_see_every_group_as_often_as_it_is_probable(
    method: str, settings: dict[str, object]
) -> None:
    part = WorldGroups(COIN, 2)
    batch = SignalledGroups((part,), SIGNALS["right"])
    estimator = sc.estimator(method, **settings)
    found = torch.from_numpy(credit_of(estimator, batch)).split(part.lengths.tolist())
    # trajectories have probability 1/4, 1/4, 1/2, so all groups are multiples of 1/16
    copies = np.round(part.chances * 16).astype(int) * 50
    assert copies.sum() == 800
    rows = np.repeat(np.arange(len(copies)), copies)
    members = (2 * rows[:, None] + [0, 1]).ravel()
    many = batch.rollouts.take(torch.from_numpy(members))
    many = many.replaced(
        group_index=torch.arange(len(members)) // 2,
        group_labels=list(range(len(rows))),
    )
    wanted = estimator(many).ragged()
    for row, member in enumerate(members):
        assert wanted[row].numpy() == pytest.approx(found[member].numpy(), rel=2e-3, abs=2e-3)
