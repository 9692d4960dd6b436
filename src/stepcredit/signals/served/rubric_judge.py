"""`RubricJudge`: a chat model labels the steps of a response by a rubric, in one answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass
from functools import cached_property, partial
from statistics import fmean
from typing import Any

from stepcredit.errors import SettingError
from stepcredit.settings.fields import declare, is_name, is_number, number, text
from stepcredit.settings.registry import hint
from stepcredit.signals.responses import Response
from stepcredit.signals.served.answers import items, member
from stepcredit.signals.served.chat_judge import PATH, ChatJudge
from stepcredit.signals.served.failures import Fault
from stepcredit.signals.served.rubric_recipe import RubricRecipe, rubric_recipe
from stepcredit.signals.signal_registry import register_signal

_BLOCK = re.compile(r"^\W*verdicts?\W*$", re.IGNORECASE | re.MULTILINE)
_LINE = re.compile(r"^\W*(?:(?:step|turn)\s+)?(\d{1,9})\s*[:.)-]\s*\W*(\w+)\W*$", re.IGNORECASE)
_NUMBER = is_number()


def _are_scores(value: Any) -> str | None:
    scores = isinstance(value, Mapping) and not any(map(_NUMBER, value.values()))
    return None if scores else "an object of numbers by label"


@register_signal("rubric")
@dataclass(frozen=True, kw_only=True)
class RubricJudge(ChatJudge):
    """A language model labels the steps of a response by a rubric; each label has a score.

        s_j = mean over votes of the score of step j's label
        s_j = unlisted, if less than a share `quorum` of the votes lists step j

    One request per response: the judge reads the task and all steps, may reason, and ends with a
    line per step that it lists. Steps that tools wrote are shown to it, are not numbered, and score
    0. An answer in another form is asked for again; no score is made up.

    Args:
        recipe: "wrong-steps" lists only faulty steps, -1 times the share of votes that flag one,
            and 0 for all others; "turn-roles" gives each turn of an agent a role, "decisive" 1,
            "exploration" 0.5, "infrastructure" 0, "regression" -1; or the path of a YAML file with
            the same keys as these.
        rubric: further words about the labels, for the judge.
        scores_by_label: other scores than the recipe's, by label.
        quorum: the recipe's if None.
        votes: samples per question; temperature: of the samples, above 0 if there are several.
        max_tokens: most tokens of an answer; None: the server's default.
        extra, empty, tell: as in `Judge`.

    Raises:
        SettingError: no such rubric or label, or a field out of range.
        SignalError: a template fails on a response, or no answer has the form that was asked for.

    Example:
        >>> judge = RubricJudge(
        ...     recipe="wrong-steps", url="http://localhost:8000", model="judge", votes=4,
        ...     temperature=0.7,
        ... )
        >>> judge.labels, judge.quorum_in_use
        ({'wrong': -1.0}, 0.5)

    Source: CAPO (2508.02298) for wrong steps, TRIAGE (2606.32017) for turn roles. Differs: the
    words of the rubrics and the roles' scores are ours.
    """

    grain = "steps"
    recipe: str = declare(MISSING, is_name, "turn-roles, wrong-steps, or a YAML file", kw_only=True)
    rubric: str = text("", "further words about the labels")
    scores_by_label: Mapping[str, float] = declare({}, _are_scores, "other scores by label")
    quorum: float | None = number(
        None, "least share of votes that lists a step", at_least=0, at_most=1, optional=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        known = [label.name for label in self.rubric_in_use.labels]
        for name in self.scores_by_label:
            if name not in known:
                reason = f"no such label{hint(name, known)}"
                raise SettingError(reason, field=f"scores_by_label.{name}")

    @cached_property
    def rubric_in_use(self) -> RubricRecipe:
        """The rubric that `recipe` names.

        Raises:
            SettingError: there is none, or it has a fault.
        """
        return rubric_recipe(self.recipe)

    @property
    def labels(self) -> dict[str, float]:
        """The score of each label."""
        own = {label.name: label.score for label in self.rubric_in_use.labels}
        return own | dict(self.scores_by_label)

    @property
    def quorum_in_use(self) -> float:
        """The quorum given, or else the recipe's."""
        return self.rubric_in_use.quorum if self.quorum is None else self.quorum

    @property
    def identity(self) -> dict[str, Any]:
        """As for every judge, with the rubric itself in place of its name."""
        return {**super().identity, "recipe": asdict(self.rubric_in_use)}

    def bodies(self, response: Response) -> list[dict[str, Any]]:
        """One request for the whole response."""
        return [self.body(self.rubric_in_use.messages(response, self.rubric))]

    async def asked(
        self, asking: Any, response: Response, bodies: list[dict[str, Any]]
    ) -> list[float]:
        """The scores of the steps that the policy wrote, and 0 for those that tools wrote."""
        written = response.written_steps
        found = iter(await asking(PATH, bodies[0], partial(self._read, sum(written))))
        return [next(found) if own else 0.0 for own in written]

    def _read(self, count: int, answer: Any) -> list[float]:
        """The scores of the numbered steps.

        Raises:
            Fault: an answer of another form.
        """
        choices = items(answer, "choices", expected=self.votes, of="choices")
        contents = [member(choice, "message", "content") for choice in choices]
        votes = [listed_labels(content, count, list(self.labels)) for content in contents]
        return [self._score(step, votes) for step in range(1, count + 1)]

    def _score(self, step: int, votes: Sequence[Mapping[int, str]]) -> float:
        unlisted, labels = self.rubric_in_use.unlisted, self.labels
        listed = [vote[step] for vote in votes if step in vote]
        if unlisted is None:
            if len(listed) < len(votes):
                raise Fault(f"the answer has no label of step {step}")
            return fmean(labels[name] for name in listed)
        if not listed or len(listed) < self.quorum_in_use * len(votes):
            return unlisted
        missing = [unlisted] * (len(votes) - len(listed))
        return fmean([*(labels[name] for name in listed), *missing])


def listed_labels(content: Any, count: int, labels: Sequence[str]) -> dict[int, str]:
    """The labels that an answer lists, by the step's number, from the lines after `Verdicts:`.

    Args:
        content: the text of the answer.
        count: how many steps are numbered.
        labels: the words that a step can have.

    Raises:
        Fault: no such lines, a line of another form, a step twice, or one that does not exist.

    Example:
        >>> listed_labels("Step 2 adds 3 twice.\\nVerdicts:\\n2: wrong", 3, ["wrong"])
        {2: 'wrong'}
        >>> listed_labels("Verdicts:\\nnone", 3, ["wrong"])
        {}
    """
    if not isinstance(content, str):
        raise Fault("the message's content is {}, expected a string", repr(content))
    *_, last = [None, *_BLOCK.finditer(content)]
    if last is None:
        raise Fault("the answer has no line `Verdicts:`")
    lines = [line for line in content[last.end() :].splitlines() if line.strip()]
    if not lines:
        raise Fault("the answer has no line after `Verdicts:`")
    if len(lines) == 1 and re.fullmatch(r"\W*none\W*", lines[0], re.IGNORECASE):
        return {}
    known = {label.casefold(): label for label in labels}
    found: dict[int, str] = {}
    for line in lines:
        match = _LINE.match(line)
        if match is None or match[2].casefold() not in known:
            raise Fault(f"the line {{}} is no number and {' or '.join(labels)}", repr(line))
        step = int(match[1])
        if not 1 <= step <= count or step in found:
            why = "comes twice" if step in found else f"is none of 1 to {count}"
            raise Fault(f"step {step} of the answer {why}")
        found[step] = known[match[2].casefold()]
    return found
