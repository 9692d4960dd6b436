"""Problems of the embedded tasks, and what an exact checker says of an answer."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("right", "wrong", "filler", "answer", "bad_answer", "malformed")


@dataclass(frozen=True)
class Problem:
    """One problem: its prompt, such as `3+4*2=`, and its answer, such as 4."""

    prompt: str
    answer: int | str


@dataclass(frozen=True)
class Graded:
    """The exact checker's result for one completion.

    Args:
        step_ends: index of each line's last token, increasing; the last is the last token.
        kinds: one of `KINDS` per line. `right`: the step that comes next, on the value last
            written. `wrong`: any other line in the form of a step. `filler`: a line without new
            content. `answer`: an answer line that repeats the value last written; it may come too
            early, because a kind judges a line by the lines before it, and only `outcome` shows
            that steps are missing. `bad_answer`: any other line in the form of an answer.
            `malformed`: a line outside the grammar, or one cut off by the token limit.
        outcome: 1.0 if the completion ends with the true value in the template, else 0.0.
        format: 1.0 if every line follows the grammar and the only answer line is last, else 0.0.
        format_ok: `format` as a bool.
        operations: number of steps that the problem needs: operations of a chain, hops of a
            question.
    """

    step_ends: list[int]
    kinds: list[str]
    outcome: float
    format: float
    format_ok: bool
    operations: int

    @property
    def fillers(self) -> int:
        """Number of filler lines."""
        return self.kinds.count("filler")

    @property
    def right_steps(self) -> int:
        """Number of right steps."""
        return self.kinds.count("right")

    @property
    def step_accuracy(self) -> float:
        """Right steps divided by the steps that are needed (or by the steps written, if more)."""
        written = self.right_steps + self.kinds.count("wrong")
        return self.right_steps / max(self.operations, written)


def follows_template(kinds: list[str]) -> bool:
    """Whether every line follows the grammar, and the only answer line is the last line.

    Example:
        >>> follows_template(["right", "answer"]), follows_template(["answer", "right"])
        (True, False)
        >>> follows_template([])
        False
    """
    answers = ("answer", "bad_answer")
    if not kinds or kinds[-1] not in answers:
        return False
    return not any(kind in (*answers, "malformed") for kind in kinds[:-1])
