"""Statistics of the responses' texts: repeated and contentless steps, words of reflection."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Sized
from typing import Any

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from stepcredit.credit.metrics.advantage_statistics import read_at_steps
from stepcredit.data.advantages import Advantages
from stepcredit.data.streams import Stream
from stepcredit.errors import RolloutError

Step = str | Sequence[int]
Flags = list[list[bool]]
REFLECTION = re.compile(
    r"\b(?:wait|hold on|however|alternatively|recheck|re-check|double-check|reconsider|rethink"
    r"|try again|let me check|let me verify|let's check|let's verify)\b"
)


def cut_steps(
    tokens: Sequence[Sequence[str]] | Sequence[Sequence[int]], ends: Stream
) -> list[list[Step]]:
    """The steps of each response, from its trained tokens: texts joined, or ids.

    Example:
        >>> import torch
        >>> ends = Stream._of(values=torch.tensor([1, 2]), counts=torch.tensor([2]))
        >>> cut_steps([["3", "=3", "ok"]], ends), cut_steps([[5, 6, 7]], ends)
        ([['3=3', 'ok']], [[(5, 6), (7,)]])
    """
    places = iter(ends.values.tolist())
    rows: list[list[Step]] = []
    for row, count in zip(tokens, ends.counts.tolist(), strict=True):
        steps, start = [], 0
        for end in (next(places) + 1 for _ in range(count)):
            steps.append(_step_of(row[start:end]))
            start = end
        rows.append(steps)
    return rows


def _step_of(tokens: Sequence[Any]) -> Step:
    return "".join(tokens) if isinstance(tokens[0], str) else tuple(tokens)


def is_contentless(step: Step) -> bool:
    """Whether a step's text has no letter and no digit; False for token ids.

    Example:
        >>> is_contentless("...\\n"), is_contentless("x = 3"), is_contentless([7])
        (True, False, False)
    """
    return isinstance(step, str) and not any(map(str.isalnum, step))


def contentless_steps(
    steps: Sequence[Sequence[Step]], rule: Callable[[Step], bool] = is_contentless
) -> Flags:
    """Which steps a rule calls contentless.

    Example:
        >>> contentless_steps([["x = 3", "---"]])
        [[False, True]]
    """
    return [[bool(rule(step)) for step in row] for row in steps]


def repeated_steps(steps: Sequence[Sequence[Step]]) -> Flags:
    """Which steps repeat an earlier step of their response.

    Texts are compared without case and space; ids must all be equal.

    Example:
        >>> repeated_steps([["So x = 3.", "Check.", "so  x = 3.\\n"], ["Check."]])
        [[False, False, True], [False]]
    """
    return [_seen_before([_normalized(step) for step in row]) for row in steps]


def _seen_before(keys: Sequence[Step]) -> list[bool]:
    first: dict[Step, int] = {}
    return [first.setdefault(key, place) != place for place, key in enumerate(keys)]


def _normalized(step: Step) -> Step:
    return " ".join(step.casefold().split()) if isinstance(step, str) else tuple(step)


def fraction(flags: Flags) -> float | None:
    """Share of all steps that are flagged; None if there is no step.

    Example:
        >>> fraction([[True, False], []])
        0.5
    """
    count = sum(map(len, flags))
    return sum(map(sum, flags)) / count if count else None


def filler_gap(advantages: Advantages, ends: Stream, filler: Flags) -> float | None:
    """How much more advantage filler steps get than the others; above 0 the policy learns to pad.

        mean over filler steps of A(last token) - mean over all other steps of A(last token)

    Args:
        advantages: of the rollouts.
        ends: the steps' last tokens, as `step_boundaries` gives them.
        filler: one flag per step, True for a repeated or contentless one.

    Returns:
        The difference, in units of an advantage; None if there are no filler or no other steps.

    Raises:
        RolloutError: the number of flags is not the number of steps.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0], process=sc.Steps([[0, 1], [0]], [[1.0, 0.0], [0.0]]))
        >>> advantages = sc.PASS(k=0.0, operator="center")(r)
        >>> ends = Stream._of(values=r.streams["process"].ends, counts=torch.tensor([2, 1]))
        >>> round(filler_gap(advantages, ends, [[False, True], [False]]), 6)
        -0.333333
    """
    check_steps(filler, ends, "filler")
    values = read_at_steps(advantages, ends)
    flags = torch.tensor([f for row in filler for f in row], dtype=torch.bool)
    return gap_of_steps(values, flags.to(values.device))


def gap_of_steps(values: Float64[Tensor, " step"], filler: Bool[Tensor, " step"]) -> float | None:
    """`filler_gap` of values that were read already, one per step, with one flag per step."""
    if not bool(filler.any()) or bool(filler.all()):
        return None
    return float(values[filler].mean() - values[~filler].mean())


def check_steps(rows: Sequence[Sequence[object]], ends: Stream, field: str) -> None:
    """Refuse rows that do not hold one value per step.

    Raises:
        RolloutError: names the row.
    """
    counts = ends.counts.tolist()
    check_one_per_rollout(rows, len(counts), field)
    for row, (given, count) in enumerate(zip(rows, counts, strict=True)):
        if len(given) != count:
            raise RolloutError(f"{len(given)} given, but {count} steps", row=row, field=field)


def check_one_per_rollout(given: Sized, count: int, field: str) -> None:
    """Refuse anything that does not hold one value per rollout.

    Raises:
        RolloutError: names the field.
    """
    if len(given) != count:
        raise RolloutError(f"{len(given)} given, but {count} rollouts", field=field)


def reflection_words(texts: Sequence[str]) -> float:
    """Mean number of words of reflection per response: "wait", "however", "let me check", ...

    The words are English; case does not matter, and whole words count. At least one text.

    Example:
        >>> reflection_words(["Wait, 2+3 is 5. Let me check: yes.", "We await 5."])
        1.0

    Source: after PURE (2504.15275), which counts such words; the list is not the paper's.
    """
    return sum(len(REFLECTION.findall(text.lower())) for text in texts) / len(texts)
