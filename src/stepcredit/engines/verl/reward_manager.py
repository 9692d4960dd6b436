"""verl's reward manager `stepcredit`: the outcome, the format reward, and the steps' scores.

It runs where verl's own managers run: in the workers of the reward loop (`reward.num_workers` of
them, spread over the nodes). Each worker builds its rewards and signals from the config, so every
node needs stepcredit, the signal's extra, its files and the environment variable of its API key.
The `concurrency` of a served signal is split between the workers. A local model is loaded by every
worker, on the CPU: serve it instead, or set `reward.num_workers=1`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from math import nan
from socket import gethostname
from typing import Any

from verl.experimental.reward_loop.reward_manager import register
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

from stepcredit.engines.scoring_costs import ScoringCost
from stepcredit.engines.verl.async_batcher import AsyncBatcher
from stepcredit.engines.verl.config_keys import VerlSettings, check_one_outcome
from stepcredit.engines.verl.extras import (
    COST,
    ERROR,
    averageable,
    merge_extras,
    reported_outcome,
    score_extras,
)
from stepcredit.engines.verl.group_filter import REWARD, filter_metric
from stepcredit.engines.verl.reward_loop import RewardedRow, measured, split_concurrency
from stepcredit.engines.verl.score_function import as_compute_score
from stepcredit.errors import StepCreditError
from stepcredit.signals.responses import Response

logger = logging.getLogger(__name__)


@register("stepcredit")
class StepCreditRewardManager(NaiveRewardManager):
    """verl's naive reward manager, with extras from which the trainer computes credit.

    The outcome is the reward function's, or `algorithm.stepcredit.outcome_reward`. The extras hold
    what the reward function returned; `format` and `format_ok` where a format reward is set; and
    for rows sampled for training `step_ends` and `step_scores`, `token_scores` or `signals`, and
    `stepcredit_error`. Names and meaning are those of the rollout format, counting all tokens of
    the response. Every row that did not fail has the same names. A reward of stepcredit adds
    `outcome`, which is None (unknown) where the reward reads a gold answer and the row has none; a
    reward function may return it too. In validation only outcome and format are computed, and only
    numbers and texts are kept.

    If a reward or signal fails, its error is the extra `stepcredit_error` and a failed outcome is
    NaN: training stops, and averages of the validation are NaN. verl would log the error, train on
    the other rows, and count the row as 0 in validation. Where verl filters groups, the reward of
    such a row is NaN too, so that its group is not dropped before training stops.

    Args:
        config: verl's; the keys under `algorithm.stepcredit` are those of `VerlSettings`.
        tokenizer: the policy's; where a signal is set, a fast one.
        compute_score: the reward function, verl's own or `reward.custom_reward_function`.
        rest: further arguments of verl's.

    Raises:
        EngineError: a key is refused, or there are two outcomes.

    Example:
        # `trainer.v1.trainer_mode=stepcredit` sets it; to set it by hand, one of
        reward.reward_manager.name=stepcredit
        reward.reward_manager.source=importlib reward.reward_manager.name=StepCreditRewardManager
            reward.reward_manager.module.path=pkg://stepcredit.engines.verl.reward_manager

    Source: verl 0.9.1, experimental/reward_loop/reward_manager/naive.py. Differs: the extras.
    """

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any, **rest: Any) -> None:
        self.settings = VerlSettings.of(config)
        outcome_reward = self.settings.outcome_reward
        if outcome_reward is not None:
            check_one_outcome(config, self.settings)
            compute_score = as_compute_score(outcome_reward)
        super().__init__(config, tokenizer, compute_score, **rest)
        self.signals = self.settings.scored_with_rewards
        self._filtered_by = filter_metric(config)
        workers = config["reward"]["num_workers"]
        self._batchers = {
            name: AsyncBatcher[Response, tuple[list[float], ScoringCost]](
                measured(split_concurrency(signal, workers))
            )
            for name, signal in self.signals.items()
        }

    async def run_single(self, data: Any) -> dict[str, Any]:
        """The reward and extras of one response.

        Args:
            data: a `DataProto` of one session; its last row gets the reward.
        """
        row = RewardedRow.of(data)
        ours = self.settings.outcome_reward is not None
        reward, error = nan, None
        extras: dict[str, Any] = {"acc": nan, "outcome": nan} if ours else {"acc": nan}
        try:
            result = await super().run_single(data)
            ours, reward, extras = True, result["reward_score"], result["reward_extra_info"]
            extras = merge_extras(extras, await self._format_extras(row))
            if row.is_training:
                outcome = reported_outcome(extras, reward)
                extras = merge_extras(extras, await self._score_extras(row, outcome))
        except Exception as failure:
            if not ours and not isinstance(failure, StepCreditError):
                raise  # the user's reward function failed: verl handles it
            error = _in_one_line(failure, row)
            logger.error("%s", error, exc_info=failure)
            unscored = score_extras(self.signals, {}, None)
            extras = {**unscored, **({COST: None} if self.signals else {}), **extras}
            if row.is_training and self._filtered_by is not None:
                reward, extras = nan, self._kept_by_filter(extras)
        extras = {**extras, ERROR: error} if row.is_training else averageable(extras)
        return {"reward_score": reward, "reward_extra_info": extras}

    def _kept_by_filter(self, extras: Mapping[str, Any]) -> dict[str, Any]:
        """The extras of a response that failed, whose group verl's filter does not drop.

        It would drop a group of equal values, and the error with it.
        """
        return {**extras, **({} if self._filtered_by == REWARD else {str(self._filtered_by): nan})}

    async def _format_extras(self, row: RewardedRow) -> dict[str, Any]:
        """The format reward and whether the format is kept; nothing without a format reward."""
        rule = self.settings.format_reward
        if rule is None:
            return {}
        text = self.tokenizer.decode(row.response_ids, skip_special_tokens=True)
        (reward,) = await asyncio.to_thread(rule, [text], [row.facts])
        return {"format": reward, "format_ok": self.settings.keeps_format(reward)}

    async def _score_extras(self, row: RewardedRow, outcome: float | None) -> dict[str, Any]:
        """The scores of the process signals.

        Raises:
            Exception: the response can't be split into steps, or its batch can't be scored.
        """
        if not self.signals:
            return {}
        response = await asyncio.to_thread(self._split, row, outcome)
        scores = await asyncio.gather(*(score(response) for score in self._batchers.values()))
        pairs = dict(zip(self._batchers, scores, strict=True))
        by_stream = {name: own for name, (own, _) in pairs.items()}
        costs = {name: cost.as_extra() for name, (_, cost) in pairs.items()}
        return {
            **score_extras(self.signals, by_stream, response.step_ends),
            COST: {"worker": f"{gethostname()} {os.getpid()}", "streams": costs},
        }

    def _split(self, row: RewardedRow, outcome: float | None) -> Response:
        return self.settings.splitter.split(row.response(self.tokenizer, outcome))


def _in_one_line(error: Exception, row: RewardedRow) -> str:
    """The error in one line that names the response."""
    ours = isinstance(error, StepCreditError)
    line = " ".join((str(error) if ours else f"{type(error).__name__}: {error}").split())
    return line if line.startswith("response ") else f"{row.name}: {line}"
