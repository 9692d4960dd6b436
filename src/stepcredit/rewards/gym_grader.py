"""The reasoning-gym grader of a worker process; it gets only texts that the table allows."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from stepcredit.rewards.gym_table import Rule, rule_of
from stepcredit.rewards.serving import RIGHT, WRONG, Grader


class GymGrader(Grader):
    """Grades with reasoning-gym's graders.

    Each item has a separate process, because some graders evaluate text as code.
    """

    process_per_item = True
    trial = ("3", '{"dataset": "chain_sum", "entry": {"answer": "3"}, "threshold": 1.0}')

    def prepare(self) -> None:
        """Import reasoning-gym."""
        import reasoning_gym  # noqa: F401

    def decide_early(self, answer: str, entry: str, /) -> str | None:
        """`WRONG` if the data set's rule keeps the answer or its row from the grader, else None.

        The reward has refused such rows already. See `verdict` for the arguments.
        """
        request = json.loads(entry)
        return None if _rule_for(answer, request) else WRONG

    def verdict(self, answer: str, entry: str, /) -> str:
        """Whether the data set's grader gives the answer at least the threshold.

        An answer on which the grader raises an error is wrong. The rule is applied here too,
        because this is where text is evaluated.

        Args:
            answer: the answer in the response.
            entry: JSON, `{"dataset": name, "entry": row of the data set, "threshold": least
                score}`.
        """
        request = json.loads(entry)
        rule, row = _rule_for(answer, request), request["entry"]
        if rule is None:
            return WRONG
        try:
            rule.restore(row)
            score = _grader(request["dataset"])(answer, row) if rule.also(answer, row) else 0.0
            return RIGHT if score >= request["threshold"] else WRONG
        except Exception:
            return WRONG


GRADER = GymGrader()


def _rule_for(answer: str, request: dict[str, Any]) -> Rule | None:
    """The data set's rule, or None if there is none or it refuses the answer or its row."""
    row, rule = request["entry"], rule_of(request["dataset"])
    try:
        through = rule and not rule.refused_field(row) and rule.lets_through(answer, row)
    except Exception:
        return None
    return rule if through else None


@cache
def _grader(name: str) -> Callable[[str, Any], float]:
    from reasoning_gym import get_score_answer_fn

    return get_score_answer_fn(name)
