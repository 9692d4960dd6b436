"""PROF's filter: keeps the responses whose process scores agree with their outcome."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stepcredit.data.files.batches import Batch
from stepcredit.data.files.rows import Row, RowStream
from stepcredit.data.files.trajectory_rows import trajectories_of_rows
from stepcredit.data.streams import Steps, TokenAdvantages
from stepcredit.errors import RolloutError
from stepcredit.keys import keyed_generator
from stepcredit.settings.fields import (
    check_fields,
    choice,
    declare,
    is_name,
    is_seed,
    number,
    whole,
)


@dataclass(frozen=True)
class ScoredResponse:
    """What the filter reads of a response.

    Args:
        right: whether its outcome is right; None: the outcome is unknown.
        score: the mean of its process scores; None: it has none.
        steps: how many steps it has; None: not known.
    """

    right: bool | None
    score: float | None
    steps: int | None = None


@dataclass(frozen=True)
class ConsistencyFilter:
    """PROF: of each group, the responses whose process scores agree with their outcome.

        consistency = mean score of the steps, less the penalty      of a right response
                      -mean score of the steps, less the penalty     of a wrong one
        k right and m - k wrong responses are kept, k(m - k) as large as there are responses for

    Right and wrong responses are ranked apart, and the most consistent of each are kept: so wrong
    responses do not vanish because their scores are low, and right ones with flawed steps do.

    Args:
        keep: m, responses kept of each group that has more.
        stream: the process stream that holds the scores.
        right_above: a response is right if its outcome is above this.
        rank: "both"; or "right": right responses alone are ranked, wrong ones are drawn by chance,
            which relies less on the reward model.
        step_penalty: taken from the consistency of a response with one step, or with more than
            `most_steps`.
        most_steps: see there.
        seed: of the draw with rank "right".

    Raises:
        SettingError: a field out of range.

    Example:
        >>> group = [ScoredResponse(True, s) for s in (0.9, 0.2, 0.8)]
        >>> group += [ScoredResponse(False, s) for s in (0.7, 0.1, 0.3)]
        >>> ConsistencyFilter(keep=4).kept(group)
        [True, False, True, False, True, True]

    Source: PROF (2509.03403), Algorithm 1: `rank="both"`, and its variant that filters right
        responses alone. As in its code the penalty is taken from wrong responses too, and steps
        are counted before, not at, the limit. Of an odd m the larger part is wrong. Here groups
        without known outcomes are kept whole, and a response without scores is the least
        consistent.
    """

    keep: int = whole(4, "responses kept of each group", at_least=1)
    stream: str = declare("process", is_name, "the stream that holds the scores")
    right_above: float = number(0.0, "a response is right if its outcome is above this")
    rank: str = choice("both", ("both", "right"), "which responses are ranked by their scores")
    step_penalty: float = number(0.0, "for one step, or too many", at_least=0)
    most_steps: int = whole(30, "the most steps without a penalty", at_least=1)
    seed: int = declare(0, is_seed, "of the draw of wrong responses")

    def __post_init__(self) -> None:
        check_fields(self)

    def kept(self, group: Sequence[ScoredResponse], label: str = "") -> list[bool]:
        """Which responses of a group are kept, in the group's order.

        Args:
            group: its responses.
            label: its label, by which the draw of wrong responses is keyed.
        """
        if len(group) <= self.keep or any(each.right is None for each in group):
            return [True] * len(group)
        right = [at for at, each in enumerate(group) if each.right]
        wrong = [at for at, each in enumerate(group) if not each.right]
        most = min(self.keep // 2, len(right))
        of_right = max(most, self.keep - len(wrong))
        chosen = {*self._best(group, right, of_right)}
        if self.rank == "both":
            chosen |= {*self._best(group, wrong, self.keep - of_right)}
        else:
            draw = keyed_generator(self.seed, "filter", label).permutation(len(wrong))
            chosen |= {wrong[at] for at in draw[: self.keep - of_right].tolist()}
        return [at in chosen for at in range(len(group))]

    def _best(self, group: Sequence[ScoredResponse], rows: list[int], count: int) -> list[int]:
        """The most consistent of some responses; of equal ones the first."""
        return sorted(rows, key=lambda at: -self.consistency(group[at]))[:count]

    def consistency(self, response: ScoredResponse) -> float:
        """How well a response's scores agree with its outcome; -inf without scores."""
        if response.score is None:
            return -math.inf
        signed = response.score if response.right else -response.score
        steps = response.steps
        odd = steps is not None and (steps == 1 or steps > self.most_steps)
        return signed - self.step_penalty * odd

    def read(self, *parts: Row) -> ScoredResponse:
        """What the filter reads of a row of a file, or of the rows of one trajectory.

        Raises:
            RolloutError: the stream is a ready-made advantage; or steps are penalized, and their
                number is not known.
        """
        outcome = parts[0].outcome
        right = None if outcome is None else outcome > self.right_above
        scored = [row for row in parts if self.stream in row.streams]
        values = [score for row in scored for score in row.streams[self.stream].values]
        if not values:
            return ScoredResponse(right, None)
        steps = [self._steps_of(row, row.streams[self.stream]) for row in scored]
        known = None if None in steps else sum(filter(None, steps))
        return ScoredResponse(right, math.fsum(values) / len(values), known)

    def _steps_of(self, row: Row, stream: RowStream) -> int | None:
        """How many steps a row has; None: not known."""
        if stream.kind is TokenAdvantages:
            raise RolloutError("is a ready-made advantage, not a score", field=self.stream)
        steps = len(stream.values) if stream.kind is Steps else None
        if steps is None and row.step_ends is not None:
            steps = len(row.step_ends)
        if steps is None and self.step_penalty:
            reason = "missing: a penalty on the number of steps needs it beside token scores"
            raise RolloutError(reason, field="step_ends")
        return steps


@dataclass
class FilterCounts:
    """What a filter kept and dropped of a file.

    Args:
        groups: all groups.
        cut: groups of which something was dropped.
        one_sided: those of them whose responses are all right or all wrong.
        unknown: groups without known outcomes, which are kept whole.
        unscored: responses without scores.
        kept, dropped: responses by kind, "right", "wrong" and "unknown".
        scores: the sum of the mean scores of scored responses, by (kind, whether kept).
        scored: how many those are.
    """

    groups: int
    cut: int
    one_sided: int
    unknown: int
    unscored: int
    kept: dict[str, int]
    dropped: dict[str, int]
    scores: dict[tuple[str, bool], float]
    scored: dict[tuple[str, bool], int]

    @classmethod
    def none(cls) -> FilterCounts:
        """The counts of no rows."""
        kinds = ("right", "wrong", "unknown")
        places = [(kind, kept) for kind in kinds for kept in (True, False)]
        counts = dict.fromkeys(kinds, 0)
        return cls(
            *(0, 0, 0, 0, 0),
            kept=counts,
            dropped=dict(counts),
            scores=dict.fromkeys(places, 0.0),
            scored=dict.fromkeys(places, 0),
        )

    def add(self, group: Sequence[ScoredResponse], kept: Sequence[bool]) -> None:
        """Count a group."""
        self.groups += 1
        sides = {each.right for each in group}
        self.unknown += None in sides
        self.cut += not all(kept)
        self.one_sided += not all(kept) and len(sides) == 1
        for each, stays in zip(group, kept, strict=True):
            kind = {None: "unknown", True: "right", False: "wrong"}[each.right]
            (self.kept if stays else self.dropped)[kind] += 1
            if each.score is None:
                self.unscored += 1
            else:
                self.scores[kind, stays] += each.score
                self.scored[kind, stays] += 1

    def mean_score(self, kind: str, kept: bool) -> float | None:
        """The mean of the scored responses' mean scores; None where there are none."""
        count = self.scored[kind, kept]
        return self.scores[kind, kept] / count if count else None


class FileSelection:
    """Which rows of a file a filter keeps, group by group.

    Args:
        rule: the filter.
    """

    def __init__(self, rule: ConsistencyFilter) -> None:
        self.rule = rule
        self.counts = FilterCounts.none()
        self.dropped: set[int] = set()

    def add(self, batch: Batch) -> FileSelection:
        """Decide the rows of a batch of whole groups; returns the selection.

        The rows of a trajectory are one response: all are kept, or all are dropped.
        """
        for group in batch.groups():
            responses = trajectories_of_rows(group.rows)
            read = [self._read(group, parts) for parts in responses]
            kept = self.rule.kept(read, str(group.rows[0].group))
            self.counts.add(read, kept)
            dropped = [parts for parts, stays in zip(responses, kept, strict=True) if not stays]
            self.dropped |= {row.position for parts in dropped for row in parts}
        return self

    def _read(self, group: Batch, parts: list[Row]) -> ScoredResponse:
        try:
            return self.rule.read(*parts)
        except RolloutError as error:
            lines = [row.line for row in group.rows]
            raise error.at(row=lines.index(parts[0].line)) from error.__cause__

    def check(self) -> None:
        """Refuse a file in which no row has scores of the stream.

        Raises:
            RolloutError: names the stream.
        """
        if not any(self.counts.scored.values()):
            raise RolloutError("no row has its scores", field=self.rule.stream)
