"""Process signals that need no reward model: they are made of outcomes and of the policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import stepcredit as sc
from stepcredit.errors import StepCreditError
from stepcredit.lab.grading import Graded
from stepcredit.lab.tokenizer import completion_text
from stepcredit.signals.models.answer_progress import AnswerProgress
from stepcredit.signals.models.monte_carlo import Cost, MonteCarlo
from stepcredit.signals.programs.prefixes import SharedPrefix
from stepcredit.signals.responses import Response

if TYPE_CHECKING:
    from stepcredit.lab.task import Task

OUTCOME_SIGNALS = ("monte-carlo", "answer-progress", "shared-prefix")
COMPLETIONS = 4
BEFORE, AFTER = "<", ">"
"""What stands around an answer."""


@dataclass(frozen=True)
class Policy:
    """The model that is trained, as it is now.

    Args:
        model, tokenizer: the model, which changes as it is trained, and the task's tokenizer.
        max_new_tokens: most tokens of an answer.
        sample: as `lab.sampling.sample`, continues texts.
    """

    model: Any
    tokenizer: Any
    max_new_tokens: int
    sample: Callable[..., list[list[int]]]


@dataclass
class OutcomeSignal:
    """Scores of steps by signals of `stepcredit.signals`, from outcomes and the policy alone.

    Args:
        name: `monte-carlo`: the mean outcome of n answers that the policy continues from the end of
            the step; the last step has the outcome of the answer itself. `answer-progress`: the
            change of log p(right answer | prompt, steps so far) under the policy; 0 for the last
            line, which is the answer. `shared-prefix`: the mean outcome of those answers of the
            group that are equal up to the end of the step.
        task: grades answers, and knows the right ones.
        seed: seed of the continued answers, with the prefixes themselves.
        n: continued answers per prefix, of `monte-carlo`.
        policy: the policy, of the first two.
        completions: answers that were continued for the newest scores.

    Raises:
        StepCreditError: n is not a positive whole number.

    Example:
        >>> from stepcredit.lab.arithmetic import ARITHMETIC
        >>> ARITHMETIC.signal("monte-carlo", 0, {"n": 2}).n
        2

    Source: the classes `MonteCarlo`, `AnswerProgress` and `SharedPrefix` of `stepcredit.signals`.
    """

    name: str
    task: Task
    seed: int = 0
    n: int = COMPLETIONS
    policy: Policy | None = None
    completions: int = 0

    models = ()

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or self.n < 1:
            reason = f"expected a positive whole number, got {self.n!r}"
            raise StepCreditError(reason, field="signal_fields.n")

    def process(
        self,
        prompts: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        graded: Sequence[Graded],
        logprobs: Mapping[str, sc.Tokens],
    ) -> sc.Steps:
        """The scores of each completion's steps; completions of one prompt are a group."""
        rows = zip(prompts, completion_ids, graded, strict=True)
        responses = [self._response(*row) for row in rows]
        rules = {"monte-carlo": self._values, "answer-progress": self._progress}
        scores = rules.get(self.name, SharedPrefix().scores)(responses)
        return sc.Steps([g.step_ends for g in graded], scores)

    @property
    def _known_policy(self) -> Policy:
        if self.policy is None:
            raise StepCreditError("needs the policy of a run", field=f"signal {self.name}")
        return self.policy

    def _response(self, prompt: str, ids: Sequence[int], graded: Graded) -> Response:
        """A completion with its lines as steps, end-of-sequence token included."""
        tokenizer = self._known_policy.tokenizer
        tokens = tokenizer.convert_ids_to_tokens(list(ids))
        bounds = [0, *accumulate(map(len, tokens))]
        return Response(
            prompt,
            "".join(tokens),
            spans=tuple(pairwise(bounds)),
            steps=tuple(bounds[end + 1] for end in graded.step_ends),
            token_ids=tuple(ids),
            prompt_ids=tuple(tokenizer(prompt).input_ids),
            facts={
                "prompt": prompt,
                "group": prompt,
                "outcome": graded.outcome,
                "answer": self.task.problem(prompt).answer,
            },
        )

    def _values(self, responses: Sequence[Response]) -> list[list[float]]:
        """The value of each step's end, from completions that are sampled all at once."""
        completed = self._completed(responses)
        signal = MonteCarlo(
            sampler=lambda prompt, prefix, n, seed: completed[prompt, prefix],
            reward=self._outcomes,
            n=self.n,
            tell=self._count,
        )
        return signal.scores(responses)

    def _completed(self, responses: Sequence[Response]) -> dict[tuple[str, str], list[str]]:
        """The policy's n completions of each step's prefix, cut where an answer must end."""
        sizes = {
            (each.prompt, each.text[:end]): last + 1
            for each in responses
            for end, last in list(zip(each.steps or (), each.step_ends, strict=True))[:-1]
        }
        if not sizes:
            return {}
        policy, texts = self._known_policy, ["".join(prefix) for prefix in sizes]
        purpose = "\n".join((self.name, *texts))
        model, tokenizer, most = policy.model, policy.tokenizer, policy.max_new_tokens
        found = iter(policy.sample(model, tokenizer, texts, self.n, self.seed, purpose, most))
        return {
            prefix: [completion_text(next(found)[: most - size], tokenizer) for _ in range(self.n)]
            for prefix, size in sizes.items()
        }

    def _outcomes(self, texts: Sequence[str], facts: Sequence[Mapping[str, Any]]) -> list[float]:
        rows = zip(facts, texts, strict=True)
        return [self.task.check(fact["prompt"], text).outcome for fact, text in rows]

    def _count(self, cost: Cost) -> None:
        self.completions = cost.completions

    def _progress(self, responses: Sequence[Response]) -> list[list[float]]:
        """The progress of each line but the last one."""
        rows = [row for row, each in enumerate(responses) if len(each.steps or ()) > 1]
        before = [_without_last_step(responses[row]) for row in rows]
        scores = dict(zip(rows, self._answer_progress.scores(before), strict=True))
        return [[*scores.get(row, ()), 0.0] for row in range(len(responses))]

    @cached_property
    def _answer_progress(self) -> AnswerProgress:
        policy = self._known_policy
        return AnswerProgress(
            model=policy.model, tokenizer=policy.tokenizer, before=BEFORE, after=AFTER
        )


def _without_last_step(response: Response) -> Response:
    steps, tokens = (response.steps or ())[:-1], response.step_ends[-2] + 1
    return replace(
        response,
        text=response.text[: steps[-1]],
        spans=response.spans[:tokens],
        steps=steps,
        token_ids=(response.token_ids or ())[:tokens],
    )
