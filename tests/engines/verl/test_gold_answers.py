"""Gold answers of verl's data set are checked when verl loads it, before anything is sampled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verl", reason="needs verl, in an environment of its own")

import pyarrow as pa
import pyarrow.parquet as pq

from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.engines.verl.trainer import StepCreditPPOTrainer
from stepcredit.errors import EngineError
from stepcredit.lab.arithmetic import build_tokenizer

READABLE = ("1/2", None, r"\boxed{7}", "42")
UNREADABLE = ("1/2", None, "t(0,4]", "42", "t(0,4]")


@pytest.fixture
def load(tmp_path: Path, compose: Callable[..., Any]) -> Callable[..., StepCreditPPOTrainer]:
    """Writes gold answers as a data set of verl's, and lets the trainer load it as verl does."""

    def make(golds: tuple[str | None, ...], *overrides: str) -> StepCreditPPOTrainer:
        path = tmp_path / "train.parquet"
        pq.write_table(pa.Table.from_pylist([row_of(gold) for gold in golds]), path)
        config = compose(
            "+algorithm.stepcredit.preflight=false",  # there is no policy to try
            f"data.train_files={path}",
            f"data.val_files={path}",
            f"data.cache_dir={tmp_path}",
            "data.dataloader_num_workers=0",
            "data.train_batch_size=2",
            *overrides,
        )
        trainer = StepCreditPPOTrainer.__new__(StepCreditPPOTrainer)
        trainer.config, trainer.credit_settings = config, VerlSettings.of(config)
        trainer.tokenizer, trainer.processor = build_tokenizer(), None
        trainer.trainer_mode, trainer.parameter_sync_step = "sync", 1
        trainer._init_dataloader()
        return trainer

    return make


def row_of(gold: str | None) -> dict[str, Any]:
    """A row as verl's own preprocessing writes it."""
    return {
        "data_source": "sums",
        "prompt": [{"role": "user", "content": "1 + 1 ="}],
        "reward_model": {"style": "rule", "ground_truth": gold},
        "extra_info": {"index": 0},
    }


MATHS = "+algorithm.stepcredit.outcome_reward=maths"


def test_golds_that_can_be_read_or_are_missing_start_a_run(load: Any) -> None:
    trainer = load(READABLE, MATHS)
    batch = next(iter(trainer.train_dataloader))
    assert len(trainer.train_dataset) == len(READABLE)
    assert {each["ground_truth"] for each in batch["reward_model"]} <= set(READABLE)


def test_a_gold_that_cannot_be_read_is_refused_at_start(load: Any) -> None:
    with pytest.raises(EngineError) as caught:
        load(UNREADABLE, MATHS)
    assert str(caught.value) == (
        "row 2: reward_model.ground_truth: can't be read as maths: 't(0,4]'; "
        "2 of 4 gold answers are like this: "
        'algorithm.stepcredit.outcome_reward_fields.unreadable="unknown" '
        "leaves their outcomes unknown"
    )


@pytest.mark.parametrize(
    "overrides",
    [
        (MATHS, "+algorithm.stepcredit.outcome_reward_fields.unreadable=unknown"),
        (MATHS, "+algorithm.stepcredit.outcome_reward_fields.unreadable=text"),
        ("+algorithm.stepcredit.outcome_reward=exact",),
        (),
    ],
    ids=["unknown", "text", "another reward", "verl's own reward"],
)
def test_such_a_gold_is_left_alone_where_the_reward_does_not_refuse_it(
    load: Any, overrides: tuple[str, ...]
) -> None:
    assert len(load(UNREADABLE, *overrides).train_dataset) == len(UNREADABLE)


def test_a_data_set_without_gold_answers_starts_a_run(load: Any) -> None:
    assert len(load((None, None), MATHS).train_dataset) == 2
