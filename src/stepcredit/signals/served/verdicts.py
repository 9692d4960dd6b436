"""A judge's answers as scores: from the log-probs of Yes and No, or from the word it wrote."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import exp, log
from statistics import fmean
from typing import TYPE_CHECKING, Any

from stepcredit.signals.served.answers import items, log_probability, member
from stepcredit.signals.served.failures import Fault

if TYPE_CHECKING:
    from stepcredit.signals.served.llm_judge import Judge

UNDECIDED = 0.5
"""The score of a vote in which neither word is found."""


def word(text: str) -> str:
    """A verdict as it is compared: without space around it, in lower case.

    Example:
        >>> word(" Yes")
        'yes'
    """
    return text.strip().casefold()


def of_step(judge: Judge, answer: Any) -> float:
    """The mean of the votes on one step.

    Raises:
        Fault: a malformed answer.
    """
    return fmean(_vote(judge, choice) for choice in _choices(judge, answer))


def of_lines(judge: Judge, count: int, answer: Any) -> list[float]:
    """The mean of the votes on each of a response's steps.

    Raises:
        Fault: a malformed answer, or lines that are not one a step in order.
    """
    votes = [_line_votes(judge, count, choice) for choice in _choices(judge, answer)]
    return [fmean(step) for step in zip(*votes, strict=True)]


def probability(judge: Judge, token: Any) -> float:
    """P(Yes) / (P(Yes) + P(No)) at a token, 0.5 where neither is among the most likely.

    Args:
        judge: whose words they are.
        token: an entry of a chat completion's `logprobs.content`.

    Raises:
        Fault: a malformed entry.
    """
    entries = items(token, "top_logprobs")
    if not entries:
        raise Fault("the answer has no likely tokens: top_logprobs is empty")
    told = [(_text(entry), member(entry, "logprob")) for entry in entries]
    sampled = _text(token)
    if all(text != sampled for text, _ in told):
        told.append((sampled, member(token, "logprob")))
    chances = [(word(text), log_probability(value, "a log-prob")) for text, value in told]
    yes = [value for text, value in chances if text == word(judge.yes)]
    no = [value for text, value in chances if text == word(judge.no)]
    if not yes or not no:
        return 1.0 if yes else 0.0 if no else UNDECIDED
    return _sigmoid(_log_sum(yes) - _log_sum(no))


def _choices(judge: Judge, answer: Any) -> list[Any]:
    return items(answer, "choices", expected=judge.votes, of="choices")


def _vote(judge: Judge, choice: Any) -> float:
    if judge.read == "text":
        found = re.findall(_verdict(judge), _written(choice), re.IGNORECASE)
        return _said(judge, found[-1 if judge.reasons else 0]) if found else UNDECIDED
    tokens = _tokens(choice)
    if not judge.reasons:
        return probability(judge, tokens[0])
    verdicts = [token for token in tokens if _is_verdict(judge, token)]
    return probability(judge, verdicts[-1]) if verdicts else UNDECIDED


def _line_votes(judge: Judge, count: int, choice: Any) -> list[float]:
    if judge.read == "text":
        return [_said(judge, line[2]) for line in _lines(judge, count, _written(choice))]
    tokens = _tokens(choice)
    texts = [_text(token) for token in tokens]
    starts = list(accumulate(map(len, texts[:-1]), initial=0))
    lines = _lines(judge, count, "".join(texts))
    found = [tokens[bisect_right(starts, line.start(2)) - 1] for line in lines]
    for number, token in enumerate(found, start=1):
        if not _is_verdict(judge, token):
            within = repr(token["token"])
            raise Fault(f"the verdict on step {number} is within the token {{}}", within)
    return [probability(judge, token) for token in found]


def _lines(judge: Judge, count: int, written: str) -> list[re.Match[str]]:
    """The lines `number: verdict`, one a step; after reasoning, the last ones."""
    pattern = rf"^[^\w\n]*(?:step\s+)?(\d{{1,9}})\s*[:.)-]\s*{_verdict(judge)}"
    lines = list(re.finditer(pattern, written, re.IGNORECASE | re.MULTILINE))
    lines = lines[-count:] if judge.reasons else lines
    numbers = [int(line[1]) for line in lines]
    if numbers != list(range(1, count + 1)):
        raise Fault(f"the answer has verdicts on steps {{}}, expected 1 to {count}", str(numbers))
    return lines


def _verdict(judge: Judge) -> str:
    return rf"(?<!\w)({re.escape(judge.yes)}|{re.escape(judge.no)})(?!\w)"


def _is_verdict(judge: Judge, token: Any) -> bool:
    return word(_text(token)) in (word(judge.yes), word(judge.no))


def _said(judge: Judge, verdict: str) -> float:
    return 1.0 if word(verdict) == word(judge.yes) else 0.0


def _written(choice: Any) -> str:
    content = member(choice, "message", "content")
    if not isinstance(content, str):
        raise Fault("the message's content is {}, expected a string", repr(content))
    return content


def _tokens(choice: Any) -> list[Any]:
    tokens = items(choice, "logprobs", "content")
    if not tokens:
        raise Fault("the answer has no token")
    return tokens


def _text(token: Any) -> str:
    text = member(token, "token")
    if not isinstance(text, str):
        raise Fault("a token's text is {}, expected a string", repr(text))
    return text


def _log_sum(values: Sequence[float]) -> float:
    peak = max(values)
    return peak + log(sum(exp(value - peak) for value in values))


def _sigmoid(value: float) -> float:
    low = exp(-abs(value))
    return (1.0 if value >= 0 else low) / (1.0 + low)
