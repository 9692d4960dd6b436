"""Turn a judge's answers into scores: by the log-probs of Yes and No, or by the word written."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import exp, log
from statistics import fmean
from typing import Any

from stepcredit.signals.served.answers import items, log_probability, member
from stepcredit.signals.served.failures import Fault

UNDECIDED = 0.5
"""The score of a vote in which neither word is found."""


def word(text: str) -> str:
    """A verdict without the space around it and in lower case, for comparison.

    Example:
        >>> word(" Yes")
        'yes'
    """
    return text.strip().casefold()


@dataclass(frozen=True)
class VerdictReader:
    """Reads scores from a judge's answers.

    Args:
        yes, no: the two words of a verdict.
        read: "logprobs" reads P(Yes) from the log-probs; "text" gives 1 or 0 by the word written.
        reasons: the judge reasons first, so the last verdict it writes counts.
        votes: samples per question.
    """

    yes: str
    no: str
    read: str
    reasons: bool
    votes: int

    def of_step(self, answer: Any) -> float:
        """The mean of the votes on one step.

        Raises:
            Fault: a malformed answer.
        """
        return fmean(self._vote(choice) for choice in self._choices(answer))

    def of_lines(self, count: int, answer: Any) -> list[float]:
        """The mean of the votes on each of a response's steps.

        Args:
            count: how many steps the response has.
            answer: decoded JSON.

        Raises:
            Fault: a malformed answer, or one that does not have one line per step, in order.
        """
        votes = [self._line_votes(count, choice) for choice in self._choices(answer)]
        return [fmean(step) for step in zip(*votes, strict=True)]

    def probability(self, token: Any) -> float:
        """P(Yes) / (P(Yes) + P(No)) at a token; 0.5 if neither is among the most likely.

        Args:
            token: an entry of a chat completion's `logprobs.content`.

        Raises:
            Fault: a malformed entry.
        """
        entries = items(token, "top_logprobs")
        if not entries:
            raise Fault("the answer has no likely tokens: top_logprobs is empty")
        likely = [(_text(entry), member(entry, "logprob")) for entry in entries]
        sampled = _text(token)
        if all(text != sampled for text, _ in likely):
            likely.append((sampled, member(token, "logprob")))
        chances = [(word(text), log_probability(value, "a log-prob")) for text, value in likely]
        yes = [value for text, value in chances if text == word(self.yes)]
        no = [value for text, value in chances if text == word(self.no)]
        if not yes or not no:
            return 1.0 if yes else 0.0 if no else UNDECIDED
        return _sigmoid(_log_sum(yes) - _log_sum(no))

    def _choices(self, answer: Any) -> list[Any]:
        return items(answer, "choices", expected=self.votes, of="choices")

    def _vote(self, choice: Any) -> float:
        if self.read == "text":
            found = re.findall(self._verdict, _written(choice), re.IGNORECASE)
            return self._said(found[-1 if self.reasons else 0]) if found else UNDECIDED
        tokens = _tokens(choice)
        if not self.reasons:
            return self.probability(tokens[0])
        verdicts = [token for token in tokens if self._is_verdict(token)]
        return self.probability(verdicts[-1]) if verdicts else UNDECIDED

    def _line_votes(self, count: int, choice: Any) -> list[float]:
        if self.read == "text":
            return [self._said(line[2]) for line in self._lines(count, _written(choice))]
        tokens = _tokens(choice)
        texts = [_text(token) for token in tokens]
        starts = list(accumulate(map(len, texts[:-1]), initial=0))
        lines = self._lines(count, "".join(texts))
        found = [tokens[bisect_right(starts, line.start(2)) - 1] for line in lines]
        for number, token in enumerate(found, start=1):
            if not self._is_verdict(token):
                within = repr(token["token"])
                raise Fault(f"the verdict on step {number} is within the token {{}}", within)
        return [self.probability(token) for token in found]

    def _lines(self, count: int, written: str) -> list[re.Match[str]]:
        """The lines `number: verdict`, one per step; after reasoning, the last ones."""
        pattern = rf"^[^\w\n]*(?:step\s+)?(\d{{1,9}})\s*[:.)-]\s*{self._verdict}"
        lines = list(re.finditer(pattern, written, re.IGNORECASE | re.MULTILINE))
        lines = lines[-count:] if self.reasons else lines
        numbers = [int(line[1]) for line in lines]
        if numbers != list(range(1, count + 1)):
            reason = f"the answer has verdicts on steps {{}}, expected 1 to {count}"
            raise Fault(reason, str(numbers))
        return lines

    @property
    def _verdict(self) -> str:
        return rf"(?<!\w)({re.escape(self.yes)}|{re.escape(self.no)})(?!\w)"

    def _is_verdict(self, token: Any) -> bool:
        return word(_text(token)) in (word(self.yes), word(self.no))

    def _said(self, verdict: str) -> float:
        return 1.0 if word(verdict) == word(self.yes) else 0.0


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
