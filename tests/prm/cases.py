"""The responses every protocol is tried on, and what each protocol is tried with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.prm import checkpoints, reference, vocabularies

from stepcredit.prm import LocalPRM
from stepcredit.signals.responses import Response
from stepcredit.signals.splitting import splitter

ROWS = [
    ("Janet's ducks lay 16 eggs. How many?", ["She eats 3.", "16 - 3 = 13 eggs.", "So 13."]),
    ("2 + 2?", ["4"]),
    (
        "Is the café open?",
        ["Le café est à 5 € — naïve 🦆🦆.", "Yes, 東京 is.", "The answer is yes."],
    ),
    (
        "  Add 1 to 9.\n",
        ["Step 1: 9.\nStep 2: 10.", "  indented: 9 + 1", "= 10", "10", "\\boxed{10}"],
    ),
    ("Sell eggs.", ["She sells 13 * 2 = 26.", "So she makes $26 every day at the market.", "26."]),
    ("Say + or -.", ["+", "-", "+ + -", "the end"]),
]


@dataclass(frozen=True)
class Case:
    """A protocol, its model's tokenizer, and its reference."""

    protocol: str
    tokenizer: Callable[[], Any]
    score: Callable[..., list[float]]

    def model(self, **sizes: Any) -> Any:
        """A random model of the protocol's kind."""
        return checkpoints.build(self.protocol, len(self.tokenizer()), **sizes)

    def checkpoint(self, folder: Path, **sizes: Any) -> Path:
        """One, saved."""
        return checkpoints.save(self.model(**sizes), self.tokenizer(), folder)

    def signal(self, folder: Path, **settings: Any) -> LocalPRM:
        """Our signal over a checkpoint."""
        return LocalPRM(str(folder), self.protocol, device="cpu", **settings)


CASES = [
    Case("qwen2.5-math-prm", vocabularies.qwen, reference.qwen),
    Case("reasonflux", vocabularies.qwen, reference.qwen),
    Case("math-shepherd", vocabularies.mistral, reference.math_shepherd),
    Case("rlhflow", vocabularies.llama, reference.rlhflow),
    Case("skywork", lambda: vocabularies.qwen(bos="<|endoftext|>"), reference.skywork),
    Case("pure", vocabularies.qwen, reference.pure),
    Case("token-classifier", vocabularies.llama, reference.token_classifier),
]
BY_NAME = {case.protocol: case for case in CASES}


def responses() -> list[Response]:
    """The rows as the policy wrote them: a blank line after each step but the last."""
    split = splitter("blank-line")
    tokenizer = vocabularies.policy()
    found = [Response.of_text(q, "\n\n".join(steps), tokenizer) for q, steps in ROWS]
    return split(found)


def bare(row: int) -> tuple[str, list[str]]:
    """A row's question and its steps without delimiters or the space around them."""
    question, steps = ROWS[row]
    return question, [step.strip() for step in steps]
