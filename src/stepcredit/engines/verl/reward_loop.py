"""A response as verl's reward loop has it, and what the reward loop tells of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from stepcredit.engines.texts import question_of
from stepcredit.errors import EngineError, RolloutError
from stepcredit.signals.responses import Response
from stepcredit.signals.served.served_signal import Served
from stepcredit.signals.signal import Signal

TRAINING = "stepcredit_train"
"""The field of rows sampled for training: the trainer sets it, as verl tells the reward loop of
validation by nothing."""
ERROR = "stepcredit_error"
"""What went wrong with a row, among its extras: verl would log an exception and pad the row away,
the trainer stops."""


@dataclass(frozen=True)
class RewardedRow:
    """One response to be rewarded.

    Args:
        prompt_ids, response_ids: without padding, special tokens kept.
        columns: the rest that verl knows of it: the data set's row, `uid`, `session_id`.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    columns: Mapping[str, Any]

    @classmethod
    def of(cls, data: Any) -> RewardedRow:
        """The last row of what verl's reward loop was sent: the session's final output.

        Args:
            data: a `DataProto` of one session.
        """
        item = data[-1:][0]
        columns, mask = item.non_tensor_batch, item.batch["attention_mask"].bool()
        prompt, response = item.batch["prompts"], item.batch["responses"]
        if "response_len" in columns:
            size, length = int(columns["prompt_len"]), int(columns["response_len"])
            return cls(prompt[:size].tolist(), response[:length].tolist(), columns)
        own, rest = mask[: len(prompt)], mask[len(prompt) :]
        return cls(prompt[own].tolist(), response[rest].tolist(), columns)

    @property
    def name(self) -> str:
        """What errors call it: the start of its key in verl's queue."""
        parts = [self.columns.get(part) for part in ("uid", "session_id")]
        return "response " + "_".join(str(part) for part in parts if part is not None)

    @property
    def is_training(self) -> bool:
        """Whether it was sampled for training: then its steps are scored."""
        return bool(self.columns.get(TRAINING, False))

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of it, for rewards and signals: `answer`, the data set's, and `group`."""
        uid, given = self.columns.get("uid"), self.columns
        return {
            **dataset_facts(given.get("reward_model"), given.get("extra_info")),
            **({} if uid is None else {"group": str(uid)}),
        }

    def response(self, tokenizer: Any, outcome: float | None) -> Response:
        """It as signals read it, not split yet.

        Args:
            tokenizer: the policy's, a fast one.
            outcome: its outcome, among the facts; None: unknown.

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
    """What verl's data set knows of a row: `extra_info`, and the ground truth as `answer`.

    An `answer` in `extra_info` is that where there is no ground truth alone: verl's own GSM8K keeps
    the whole written solution there.

    Example:
        >>> dataset_facts({"ground_truth": "72"}, {"answer": "48 + 24 = 72 #### 72", "index": 0})
        {'answer': '72', 'index': 0}
    """
    known, truth = dict(extra_info or {}), (reward_model or {}).get("ground_truth")
    return {**known, "answer": known.get("answer") if truth is None else truth}


def with_outcome(facts: Mapping[str, Any], outcome: float | None) -> dict[str, Any]:
    """Facts with the response's outcome; without any where it is unknown.

    Example:
        >>> with_outcome({"answer": "72"}, 1.0), with_outcome({"outcome": 0.5}, None)
        ({'answer': '72', 'outcome': 1.0}, {})
    """
    known = {name: value for name, value in facts.items() if name != "outcome"}
    return known if outcome is None else {**known, "outcome": outcome}


def told_outcome(extras: Mapping[str, Any], reward: float) -> float | None:
    """The outcome of a row: `outcome` among its extras, where None is unknown, or its reward.

    Raises:
        RolloutError: it is something else than a number.

    Example:
        >>> told_outcome({}, 1.0), told_outcome({"outcome": 0.5}, 1.0)
        (1.0, 0.5)
        >>> told_outcome({"outcome": None}, 0.0) is None
        True
    """
    given = extras.get("outcome", reward)
    try:
        return None if given is None else float(given)
    except (TypeError, ValueError):
        raise RolloutError(f"expected a number or null, got {given!r}", field="outcome") from None


def told(signals: Mapping[str, Signal], scored: Mapping[str, Sequence[float]], ends: Any) -> Any:
    """Scores under the names of the rollout format, the same for every row.

    Args:
        signals: by stream.
        scored: scores by stream; none of a row that has none.
        ends: index of each step's last token, all tokens of the response counted; None where no
            signal scores steps.

    Example:
        >>> from stepcredit.signals.signal_registry import signal
        >>> told({"process": signal("equations")}, {"process": [1.0]}, [8])
        {'step_ends': [8], 'step_scores': [1.0]}
        >>> told({"checked": signal("equations")}, {"checked": [1.0]}, [8])
        {'signals': {'checked': {'scores': [1.0], 'ends': [8]}}}
    """
    found: dict[str, Any] = {}
    for name, signal in signals.items():
        scores, by_step = scored.get(name), signal.grain == "steps"
        if name != "process":
            stream = {"scores": scores, **({"ends": ends} if by_step else {})}
            found.setdefault("signals", {})[name] = None if scores is None else stream
        elif by_step:
            found |= {"step_ends": None if scores is None else ends, "step_scores": scores}
        else:
            found["token_scores"] = scores
    return found


def merged(own: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """The reward function's extras and ours.

    Raises:
        EngineError: both give the same.

    Example:
        >>> merged({"acc": 1.0}, {"format": 0.0})
        {'acc': 1.0, 'format': 0.0}
    """
    for name in ours:
        if own.get(name) is not None:
            reason = "the reward function gives it too: leave it to one of them"
            raise EngineError(reason, field=name)
    return {**own, **ours}


def numbers_alone(extras: Mapping[str, Any]) -> dict[str, Any]:
    """Extras that verl's validation can average: it fails on lists and mappings, and leaves out
    what is None.

    Example:
        >>> numbers_alone({"outcome": None, "pred": "42", "step_ends": [3]})
        {'outcome': None, 'pred': '42'}
    """
    return {
        name: value
        for name, value in extras.items()
        if not isinstance(value, Mapping | list | tuple) and not getattr(value, "ndim", 0)
    }


def shared(signal: Signal, workers: int) -> Signal:
    """A signal of which each served part has one worker's share of its `concurrency`.

    Args:
        signal: served, or made of others: a sum, a cache, a map, a log-ratio's sides.
        workers: how many ask at once.

    Example:
        >>> from stepcredit.signals.signal_registry import signal
        >>> judge = signal("judge", url="http://localhost:8000", model="judge", concurrency=20)
        >>> shared(judge, workers=8).concurrency
        2
    """
    if isinstance(signal, Served):
        return replace(signal, concurrency=max(1, signal.concurrency // workers))
    if not is_dataclass(signal):
        return signal
    parts = {field.name: getattr(signal, field.name) for field in fields(signal) if field.init}
    changes = {name: _shared_part(part, workers) for name, part in parts.items()}
    return replace(signal, **{name: part for name, part in changes.items() if part is not None})


def _shared_part(part: Any, workers: int) -> Any:
    """A signal, or signals, each with a worker's share; None of anything else."""
    if isinstance(part, Signal):
        return shared(part, workers)
    if isinstance(part, list | tuple) and any(isinstance(each, Signal) for each in part):
        return tuple(shared(each, workers) for each in part)
    return None
