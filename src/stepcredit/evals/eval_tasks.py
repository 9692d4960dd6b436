"""The benchmarks of `stepcredit eval`: their rows, their prompts, and how they are graded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from stepcredit.errors import SettingError

MATHS = "{prompt}\n\nPlease reason step by step, and put your final answer within \\boxed{}."
QA = (
    "{prompt}\n\nReason step by step. Then name the sentences that support the answer between "
    "<support> and </support>, one per line as `Title | number`, and give the answer alone between "
    "<answer> and </answer>."
)
QA_PARAGRAPHS = (
    "{prompt}\n\nReason step by step. Then name the numbers of the paragraphs that support the "
    "answer between <support> and </support>, one per line, and give the answer alone between "
    "<answer> and </answer>."
)


@dataclass(frozen=True)
class EvalTask:
    """A benchmark, declared.

    Args:
        name: its name on the command line.
        hub: its data set on the Hugging Face Hub.
        split: the split that is evaluated.
        config: the data set's configuration, if it has several.
        question: fields that may hold the question; the first that a row has is read.
        answer: the same for the gold answer.
        gold: the form of a gold answer: `hashes` stands behind `####`, `integer` is a whole number,
            `maths` is in any form that the reward `maths` reads, `text` is words.
        context: fields that hold the passages of a question; none for maths.
        template: the user's turn. `{prompt}` is the question with its passages.
        read: where an answer stands in a response, a name in `stepcredit.rewards.extract.READERS`.
    """

    name: str
    hub: str
    split: str
    config: str | None = None
    question: tuple[str, ...] = ("problem", "question")
    answer: tuple[str, ...] = ("answer",)
    gold: Literal["hashes", "integer", "maths", "text"] = "maths"
    context: tuple[str, ...] = ()
    template: str = MATHS
    read: str = "any"

    @property
    def is_qa(self) -> bool:
        """Whether answers are words that are graded by exact match and F1, not maths."""
        return self.gold == "text"


def _qa(name: str, hub: str, config: str | None = None, *, paragraphs: bool = False) -> EvalTask:
    """A multi-hop question answering set, with sentences or whole paragraphs as evidence."""
    return EvalTask(
        name,
        hub,
        "validation",
        config,
        question=("question",),
        gold="text",
        context=("paragraphs",) if paragraphs else ("context",),
        template=QA_PARAGRAPHS if paragraphs else QA,
        read="answer-tag",
    )


EVAL_TASKS = {
    task.name: task
    for task in (
        EvalTask("aime24", "HuggingFaceH4/aime_2024", "train", gold="integer"),
        EvalTask("aime25", "math-ai/aime25", "test", gold="integer"),
        EvalTask("amc23", "math-ai/amc23", "test"),
        EvalTask("gsm8k", "openai/gsm8k", "test", "main", gold="hashes", read="number"),
        EvalTask("math500", "HuggingFaceH4/MATH-500", "test"),
        EvalTask("minerva", "math-ai/minervamath", "test", answer=("answer", "solution")),
        EvalTask(
            "olympiadbench",
            "Hothan/OlympiadBench",
            "train",
            "OE_TO_maths_en_COMP",
            answer=("final_answer",),
        ),
        _qa("hotpotqa", "hotpotqa/hotpot_qa", "distractor"),
        _qa("2wiki", "framolfese/2WikiMultihopQA"),
        _qa("musique", "dgslibisey/MuSiQue", paragraphs=True),
    )
}
"""The benchmarks by name."""


def named_tasks(names: Sequence[str]) -> list[EvalTask]:
    """The benchmarks of these names, in this order.

    Raises:
        SettingError: an unknown name, one that is given twice, or none.

    Example:
        >>> [task.hub for task in named_tasks(["gsm8k", "math500"])]
        ['openai/gsm8k', 'HuggingFaceH4/MATH-500']
        >>> named_tasks(["gsm8"])
        Traceback (most recent call last):
        ...
        stepcredit.errors.SettingError: gsm8: unknown task; did you mean gsm8k?
    """
    for name in names:
        if name not in EVAL_TASKS:
            near = get_close_matches(name, EVAL_TASKS, 1)
            known = f"did you mean {near[0]}?" if near else f"known: {', '.join(EVAL_TASKS)}"
            raise SettingError(f"unknown task; {known}", field=name)
        if names.count(name) > 1:
            raise SettingError("is given twice", field=name)
    if not names:
        raise SettingError(f"expected one or more of {', '.join(EVAL_TASKS)}")
    return [EVAL_TASKS[name] for name in names]
