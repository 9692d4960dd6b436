"""Signals made of another signal's scores along a response: progress, returns, turns, filler."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import fsum
from typing import Any, ClassVar

from stepcredit.credit.metrics.text_statistics import contentless_steps, repeated_steps
from stepcredit.errors import SettingError
from stepcredit.settings.fields import choice, declare, number
from stepcredit.signals.combine import MappedSignal, register_map
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import Grain, IndexedScores
from stepcredit.signals.splitting import SPLITTERS, Splitter


@register_map("difference")
@dataclass(frozen=True)
class Difference(MappedSignal):
    """Progress: by how much a step changes the score of the state that it leads to.

        s'_j = s_j - s_{j-1},  s_0 = start

    For scores that value what is written so far, such as the expected outcome after step j. The
    differences of a response add up to s_K - start, however many steps it has, so a policy that
    sums them gains nothing by more steps.

    Args:
        signal: scores states: a signal, its name, or {name: fields}.
        start: the score before the first step.

    Example:
        >>> from stepcredit.signals.programs.checked import Program
        >>> from stepcredit.signals.splitting import Newline
        >>> values = Program(lambda response: [0.5, 0.75, 0.25])
        >>> Difference(values, start=0.5).scores(Newline()([Response.of_text("?", "a\\nb\\nc")]))
        [[0.0, 0.25, -0.5]]

    Source: potential-based shaping (Ng et al. 1999) without a discount.
    """

    start: float = number(0.0, "score before the first step")

    def mapped_row(self, scores: Sequence[float]) -> list[float]:
        """Each score less the one before it."""
        return [after - before for before, after in pairwise((self.start, *scores))]


@register_map("discounted")
@dataclass(frozen=True)
class Discounted(MappedSignal):
    """The discounted return: what a step's score and all later ones are worth together.

        s'_j = sum over l >= j of gamma^(l - j) s_l

    For methods that read each step alone. A method with a return-to-go (`pass`, `pure`,
    `grpo-process`, `adca`, `turn-return`) would add the scores up a second time.

    Args:
        signal: a signal, its name, or {name: fields}.
        gamma: the discount per step or token, from 0 to 1; 0 changes nothing.

    Example:
        >>> from stepcredit.signals.programs.checked import Program
        >>> from stepcredit.signals.splitting import Newline
        >>> rewards = Program(lambda response: [1.0, 0.0, 2.0])
        >>> Discounted(rewards, gamma=0.5).scores(Newline()([Response.of_text("?", "a\\nb\\nc")]))
        [[1.5, 1.0, 2.0]]
    """

    gamma: float = number(0.95, "discount per step", at_least=0.0, at_most=1.0)

    def mapped_row(self, scores: Sequence[float]) -> list[float]:
        """From the last step back: s + gamma times the next one's return."""
        returns: list[float] = []
        for score in reversed(scores):
            returns.append(score + self.gamma * (returns[-1] if returns else 0.0))
        return returns[::-1]


@register_map("cap-filler")
@dataclass(frozen=True)
class CappedFiller(MappedSignal):
    """Scores that pay nothing for steps that add nothing.

        s'_j = min(s_j, most)   if step j has no letter or digit, or repeats an earlier step
        s'_j = s_j              for every other step

    For a reward model that scores such steps high, so that the policy learns to write more of
    them. The rules are those of `filler_gap` and of the audit; repetitions are found without case
    and space.

    Args:
        signal: scores steps: a signal, its name, or {name: fields}.
        most: the highest score that such a step keeps; of a signal from 0 to 1 its lowest, 0.

    Raises:
        SettingError: the other signal scores tokens.

    Example:
        >>> from stepcredit.signals.programs.checked import Program
        >>> from stepcredit.signals.splitting import Newline
        >>> high = Program(lambda response: [0.9, 0.9, 0.9, -1.0])
        >>> lines = Response.of_text("?", "2 + 3 = 5\\n...\\n2 + 3 = 5\\n?")
        >>> CappedFiller(high).scores(Newline()([lines]))
        [[0.9, 0.0, 0.0, -1.0]]
    """

    most: float = number(0.0, "the highest score of a step that adds nothing")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.signal.grain != "steps":
            reason = f"expected a signal that scores steps, got one of {self.signal.grain}"
            raise SettingError(reason, field="signal")

    def content(self, response: Response) -> Any:
        """What the other scores depend on, and the texts of the steps."""
        return [self.signal.content(response), response.step_texts]

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """The capped scores, in the order of the other signal."""
        for index, scores in self.signal.checked(responses):
            steps = [responses[index].step_texts]
            (empty,), (repeated,) = contentless_steps(steps), repeated_steps(steps)
            known = zip(scores, empty, repeated, strict=False)  # the last steps may have no score
            yield index, [min(s, self.most) if none or again else s for s, none, again in known]


def _mean(scores: Sequence[float]) -> float:
    return fsum(scores) / len(scores)


def _last(scores: Sequence[float]) -> float:
    return scores[-1]


def _no_splitter(value: Any) -> str | None:
    return None if value is None or isinstance(value, Splitter) else "a splitter"


@register_map("aggregate")
@dataclass(frozen=True)
class Aggregated(MappedSignal):
    """One score per step, such as an agent's turn, of another signal's finer scores.

        s'_j = mean, min or last of the scores of step j's tokens, or of the finer steps in it

    A finer step belongs to the step that holds its last token; a step that holds none gets the
    score of the finer step that goes on past it. A step whose finer steps could not be scored has
    no score.

    Args:
        signal: scores tokens or steps: a signal, its name, or {name: fields}.
        how: "mean", "min" or "last".
        splitter: how responses are split for the other signal, if that scores steps: a splitter,
            its name, or {name: fields}; None: as for this one, where each step has one score.

    Example:
        >>> from stepcredit.signals.programs.checked import Program
        >>> from stepcredit.signals.splitting import BlankLine, Newline
        >>> lines = Program(lambda response: [0.5 / (1 + at) for at in range(3)])
        >>> turns = BlankLine()([Response.of_text("?", "a\\nb\\n\\nc")])
        >>> Aggregated(lines, how="min", splitter="newline").scores(turns)
        [[0.25, 0.16666666666666666]]
    """

    how: str = choice("mean", ("mean", "min", "last"), "what a step's scores are reduced to")
    splitter: Splitter | None = declare(
        None, _no_splitter, "how the other signal's steps are split; null: as this one's"
    )

    grain: ClassVar[Grain] = "steps"  # type: ignore[misc]
    rules: ClassVar[dict[str, Callable[[Sequence[float]], float]]] = {
        "mean": _mean,
        "min": min,
        "last": _last,
    }

    def __post_init__(self) -> None:
        if self.splitter is not None and not isinstance(self.splitter, Splitter):
            found = SPLITTERS.build_inner(self.splitter, "splitter")
            object.__setattr__(self, "splitter", found)
        super().__post_init__()

    @property
    def identity(self) -> dict[str, Any]:
        """As for every map, with the splitter."""
        return {**super().identity, "splitter": repr(self.splitter)}

    def content(self, response: Response) -> Any:
        """What the finer scores depend on, and where the steps end."""
        return [self.signal.content(self._finer(response)), response.step_ends]

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """The reduced scores, in the order of the other signal."""
        finer = [self._finer(response) for response in responses]
        for index, scores in self.signal.checked(finer):
            ends = self._ends(finer[index], len(scores))
            yield index, self._reduced(responses[index].step_ends, ends, scores)

    def _finer(self, response: Response) -> Response:
        """The response as the other signal reads it."""
        return response if self.splitter is None else self.splitter.split(response)

    def _ends(self, response: Response, count: int) -> list[int]:
        """The last token of each score of the other signal."""
        tokens = self.signal.grain == "tokens"
        return list(range(count)) if tokens else response.step_ends[:count]

    def _reduced(
        self, steps: Sequence[int], ends: Sequence[int], scores: Sequence[float]
    ) -> list[float]:
        found: list[float] = []
        start = 0
        for step in steps:
            stop = bisect_right(ends, step)
            own = scores[start:stop] or scores[stop : stop + 1]
            if not own:
                break
            found.append(self.rules[self.how](own))
            start = stop
        return found
