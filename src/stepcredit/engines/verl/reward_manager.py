"""verl's reward manager `stepcredit`: the outcome, the format reward, and the steps' scores.

It runs where verl's own do, in the workers of the reward loop (`reward.num_workers` of them, spread
over the nodes), and builds all it needs there from the config: every node needs stepcredit, the
signal's extra, its files and the environment variable of its API key. Of a served signal, each
worker takes its share of the `concurrency`; a local model is loaded by every worker, on the CPU, so
serve it, or set `reward.num_workers=1`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from math import nan
from typing import Any

from verl.experimental.reward_loop.reward_manager import register
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

from stepcredit.engines.verl.async_batcher import Gathering
from stepcredit.engines.verl.config_keys import PLACE, VerlSettings
from stepcredit.engines.verl.reward_loop import (
    ERROR,
    RewardedRow,
    merged,
    numbers_alone,
    shared,
    told,
    told_outcome,
)
from stepcredit.engines.verl.score_function import as_compute_score
from stepcredit.errors import EngineError, StepCreditError
from stepcredit.signals.responses import Response

logger = logging.getLogger(__name__)


@register("stepcredit")
class StepCreditRewardManager(NaiveRewardManager):
    """verl's naive reward manager, whose extras say what credit is made of.

    The outcome is the reward function's, or `algorithm.stepcredit.outcome_reward`. The extras have
    what the reward function returned, `format` and `format_ok` where a format reward is set, and of
    rows sampled for training `step_ends` and `step_scores`, `token_scores` or `signals`, and
    `stepcredit_error`: the names and meaning of the rollout format, all tokens of the response
    counted, the same names for every row that did not fail. A reward of ours tells the `outcome`
    too: None, unknown, where it reads a gold answer and the row has none; so may a reward function.
    In validation only numbers and texts remain, and nothing is scored but outcome and format.

    A reward or signal that fails is told under `stepcredit_error`, and an outcome that failed is
    NaN: the trainer stops at it, and validation's averages are NaN. verl would log it, train on the
    rest, and count it as 0 in validation.

    Args:
        config: verl's; the keys under `algorithm.stepcredit` are `VerlSettings`'.
        tokenizer: the policy's, a fast one where a signal is set.
        compute_score: the reward function, verl's own or `reward.custom_reward_function`.
        rest: as verl passes them.

    Raises:
        EngineError: a key refused, or two outcomes.

    Example:
        # `trainer.v1.trainer_mode=stepcredit` sets it; by hand, one of
        reward.reward_manager.name=stepcredit
        reward.reward_manager.source=importlib reward.reward_manager.name=StepCreditRewardManager
            reward.reward_manager.module.path=pkg://stepcredit.engines.verl.reward_manager

    Source: verl 0.9.1, experimental/reward_loop/reward_manager/naive.py. Differs: the extras.
    """

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any, **rest: Any) -> None:
        self.settings = VerlSettings.of(config)
        own = self.settings.outcome_reward
        if own is not None:
            check_one_outcome(config)
            compute_score = as_compute_score(own)
        super().__init__(config, tokenizer, compute_score, **rest)
        self.signals = self.settings.scored_with_rewards
        workers = config["reward"]["num_workers"]
        self._scored = {
            name: Gathering[Response, list[float]](shared(signal, workers).checked)
            for name, signal in self.signals.items()
        }

    async def run_single(self, data: Any) -> dict[str, Any]:
        """One response's reward and extras.

        Args:
            data: a `DataProto` of one session; its last row is rewarded.
        """
        row = RewardedRow.of(data)
        ours = self.settings.outcome_reward is not None
        reward, error = nan, None
        extras: dict[str, Any] = {"acc": nan, "outcome": nan} if ours else {"acc": nan}
        try:
            found = await super().run_single(data)
            ours, reward, extras = True, found["reward_score"], found["reward_extra_info"]
            extras = merged(extras, await self._format(row))
            if row.is_training:
                extras = merged(extras, await self._process(row, told_outcome(extras, reward)))
        except Exception as failed:
            if not ours and not isinstance(failed, StepCreditError):
                raise  # by the user's reward function
            error = _line(failed, row)
            logger.error("%s", error, exc_info=failed)
            extras = {**told(self.signals, {}, None), **extras}
        extras = {**extras, ERROR: error} if row.is_training else numbers_alone(extras)
        return {"reward_score": reward, "reward_extra_info": extras}

    async def _format(self, row: RewardedRow) -> dict[str, Any]:
        """The format reward and whether the response keeps the format; nothing where none is."""
        rule = self.settings.format_reward
        if rule is None:
            return {}
        text = self.tokenizer.decode(row.response_ids, skip_special_tokens=True)
        (found,) = await asyncio.to_thread(rule, [text], [row.facts])
        return {"format": found, "format_ok": self.settings.keeps_format(found)}

    async def _process(self, row: RewardedRow, outcome: float | None) -> dict[str, Any]:
        """The process signals' extras.

        Raises:
            Exception: the response can't be split, or it or another of its batch not scored.
        """
        if not self.signals:
            return {}
        response = await asyncio.to_thread(self._split, row, outcome)
        rows = await asyncio.gather(*(score(response) for score in self._scored.values()))
        return told(self.signals, dict(zip(self._scored, rows, strict=True)), response.step_ends)

    def _split(self, row: RewardedRow, outcome: float | None) -> Response:
        return self.settings.splitter.split(row.response(self.tokenizer, outcome))


def _line(error: Exception, row: RewardedRow) -> str:
    """The error in one line that names the response."""
    known = isinstance(error, StepCreditError)
    said = " ".join((str(error) if known else f"{type(error).__name__}: {error}").split())
    return said if said.startswith("response ") else f"{row.name}: {said}"


def check_one_outcome(config: Mapping[str, Any]) -> None:
    """Refuse an outcome of ours beside a reward function of the user's.

    Raises:
        EngineError: names the key.
    """
    path = (config["reward"].get("custom_reward_function") or {}).get("path")
    if path is not None:
        reason = f"reward.custom_reward_function.path={path} is an outcome too: leave one of them"
        raise EngineError(reason, field=f"{PLACE}.outcome_reward")
