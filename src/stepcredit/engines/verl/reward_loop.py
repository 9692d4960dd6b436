"""One response as verl's reward loop holds it, and as rewards and signals read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stepcredit.engines.scoring_costs import CostWatch, ScoringCost
from stepcredit.engines.texts import question_of
from stepcredit.engines.verl.training_mark import TRAINING, is_marked
from stepcredit.signals.responses import Response
from stepcredit.signals.served.served_signal import Served
from stepcredit.signals.signal import Signal


@dataclass(frozen=True)
class RewardedRow:
    """One response that is to get a reward.

    Args:
        prompt_ids, response_ids: without padding, special tokens kept.
        columns: its other fields in verl: the data set's row, `uid`, `session_id`.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    columns: Mapping[str, Any]

    @classmethod
    def of(cls, data: Any) -> RewardedRow:
        """The last row of what verl sends to the reward loop: the session's final output.

        Args:
            data: a `DataProto` of one session.
        """
        item = data[-1:][0]
        columns, mask = item.non_tensor_batch, item.batch["attention_mask"].bool()
        prompt, response = item.batch["prompts"], item.batch["responses"]
        if "response_len" in columns:
            size, length = int(columns["prompt_len"]), int(columns["response_len"])
            return cls(prompt[:size].tolist(), response[:length].tolist(), columns)
        of_prompt, of_response = mask[: len(prompt)], mask[len(prompt) :]
        return cls(prompt[of_prompt].tolist(), response[of_response].tolist(), columns)

    @property
    def name(self) -> str:
        """What errors call it: the start of its key in verl's queue."""
        parts = [self.columns.get(part) for part in ("uid", "session_id")]
        return "response " + "_".join(str(part) for part in parts if part is not None)

    @property
    def is_training(self) -> bool:
        """Whether it was sampled for training: only then are its steps scored."""
        return is_marked(self.columns.get(TRAINING))

    @property
    def facts(self) -> dict[str, Any]:
        """The facts that rewards and signals read: the data set's, `answer` and `group`."""
        uid, columns = self.columns.get("uid"), self.columns
        return {
            **dataset_facts(columns.get("reward_model"), columns.get("extra_info")),
            **({} if uid is None else {"group": str(uid)}),
        }

    def response(self, tokenizer: Any, outcome: float | None) -> Response:
        """The response that signals read, not split into steps yet.

        Args:
            tokenizer: the policy's, a fast one.
            outcome: added to the facts; None: unknown.

        Raises:
            RolloutError: it cannot be decoded.
        """
        return Response.of_ids(
            question_of(self.columns.get("raw_prompt"), without=""),
            self.response_ids,
            tokenizer,
            name=self.name,
            prompt_ids=tuple(self.prompt_ids),
            facts=with_outcome(self.facts, outcome),
        )


def dataset_facts(
    reward_model: Mapping[str, Any] | None, extra_info: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The facts in a row of verl's data set: `extra_info`, and the ground truth as `answer`.

    An `answer` in `extra_info` is used only where there is no ground truth: in verl's own GSM8K it
    holds the whole written solution.

    Example:
        >>> dataset_facts({"ground_truth": "72"}, {"answer": "48 + 24 = 72 #### 72", "index": 0})
        {'answer': '72', 'index': 0}
    """
    facts, truth = dict(extra_info or {}), (reward_model or {}).get("ground_truth")
    return {**facts, "answer": facts.get("answer") if truth is None else truth}


def with_outcome(facts: Mapping[str, Any], outcome: float | None) -> dict[str, Any]:
    """Facts with the response's outcome; facts without an outcome where it is unknown.

    Example:
        >>> with_outcome({"answer": "72"}, 1.0), with_outcome({"outcome": 0.5}, None)
        ({'answer': '72', 'outcome': 1.0}, {})
    """
    others = {name: value for name, value in facts.items() if name != "outcome"}
    return others if outcome is None else {**others, "outcome": outcome}


def measured(
    signal: Signal,
) -> Callable[[Sequence[Response]], Iterator[tuple[int, tuple[list[float], ScoringCost]]]]:
    """The signal's checked scores, each with what it took since the one before it.

    Example:
        >>> from stepcredit.signals.signal_registry import signal
        >>> response = Response("?", "<<1+1=2>>", spans=((0, 9),), steps=(9,))
        >>> [(index, (scores, cost))] = measured(signal("equations"))([response])
        >>> index, scores, cost.seconds >= 0
        (0, [1.0], True)
    """

    def score(
        responses: Sequence[Response],
    ) -> Iterator[tuple[int, tuple[list[float], ScoringCost]]]:
        watch = CostWatch(signal)
        for index, scores in signal.checked(responses):
            yield index, (scores, watch.lap())

    return score


def split_concurrency(signal: Signal, workers: int) -> Signal:
    """The signal for one of several workers: each served part gets its part of the `concurrency`.

    Args:
        signal: a served one, or one made of others: a sum, a cache, a map, a log-ratio's models.
        workers: how many workers send requests at once.

    Example:
        >>> from stepcredit.signals.signal_registry import signal
        >>> judge = signal("judge", url="http://localhost:8000", model="judge", concurrency=20)
        >>> split_concurrency(judge, workers=8).concurrency
        2
    """
    if isinstance(signal, Served):
        return replace(signal, concurrency=max(1, signal.concurrency // workers))
    return signal.with_parts(lambda part: split_concurrency(part, workers))
