"""Three made-up responses, which are scored and credited before the first one is sampled.

One is right, one is wrong, and one is right and as long as the policy may write: what does not fit
a model's context or memory shows with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepcredit.signals.responses import Response

OUTCOMES = (1.0, 0.0, 1.0)
"""Of the right, the wrong and the longest response, where no reward says another."""
TRIED_ROWS = 8
"""Rows of the data set on which rewards are tried."""
RIGHT = "I write down what is given.\n\nThe answer is \\boxed{{{gold}}}.\n\n#### {gold}"
WRONG = "I only guess.\n\nThere is no answer."
ENDLESS = "The next step follows from the one before it, and nothing else is changed by it.\n\n"
LOGPROB = -1.0
"""The log-prob of each token, where the trainer computes them from the policy."""


def right_text(row: Mapping[str, Any], answer: str = "answer") -> str:
    """A response with a row's gold answer, in a box and after the mark of GSM8K.

    Args:
        row: the facts.
        answer: the field with the gold answer.

    Example:
        >>> right_text({"answer": 42}).splitlines()[-1]
        '#### 42'
    """
    gold = row.get(answer)
    if isinstance(gold, list | tuple) and gold:
        gold = gold[0]
    return RIGHT.format(gold="42" if gold is None else gold)


def made_up_ids(tokenizer: Any, row: Mapping[str, Any], longest: int) -> list[list[int]]:
    """The token ids of the three responses.

    Args:
        tokenizer: the policy's.
        row: the facts; the right response holds its gold answer.
        longest: the most tokens of a response.
    """
    right, wrong, endless = (
        list(tokenizer(text, add_special_tokens=False)["input_ids"])
        for text in (right_text(row), WRONG, ENDLESS)
    )
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    beginning = longest - len(right)
    tiled = (endless * (longest // max(1, len(endless)) + 1))[: max(0, beginning)]
    return [(right + end)[:longest], (wrong + end)[:longest], (tiled + right)[:longest]]


def made_up_responses(
    ids: Sequence[Sequence[int]],
    tokenizer: Any,
    *,
    question: str,
    prompt_ids: Sequence[int],
    row: Mapping[str, Any],
    outcomes: Sequence[float | None],
    logprobs: Sequence[str],
) -> list[Response]:
    """The responses as signals read them, not split into steps.

    Args:
        ids: as `made_up_ids` gives them.
        tokenizer: the policy's, a fast one.
        question, prompt_ids: the prompt, as text and as the policy reads it.
        row: the data set's row.
        outcomes: of each response, None where it is unknown.
        logprobs: the models whose log-probs the trainer will compute; here each is -1.

    Raises:
        RolloutError: the tokenizer can't say which characters a token holds.
    """
    names = ("the right made-up response", "the wrong made-up response", "the longest response")
    return [
        Response.of_ids(
            question,
            own,
            tokenizer,
            name=name,
            prompt_ids=tuple(prompt_ids),
            facts={
                **row,
                "group": 0,
                "outcome": outcome,
                **{f"{model}_logprobs": [LOGPROB] * len(own) for model in logprobs},
            },
        )
        for own, name, outcome in zip(ids, names, outcomes, strict=True)
    ]
