"""docs/failure-stories.md: the code prints every line that the page shows."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("trl")

from datasets import Dataset
from tests.engines.trl.on_cpu import ON_CPU
from trl import GRPOConfig

import stepcredit as sc
from stepcredit.cli import app
from stepcredit.credit.metrics import training_metrics
from stepcredit.credit.metrics.batch_warnings import credit_warnings
from stepcredit.engines.trl import StepCreditGRPOTrainer
from stepcredit.errors import StepCreditError
from stepcredit.launch.tiny_models import save_language_model
from stepcredit.launch.tiny_vocabulary import SUMS, TinyVocabulary, reward_pieces

PAGE = Path(__file__).resolve().parents[1] / "docs" / "failure-stories.md"
Story = Callable[[Path], str]
STORIES: dict[str, Story] = {}
"""By the heading on the page, what produces its lines."""
SCORES = [[0.9, 0.1], [0.2, 0.4], [0.6, 0.3], [0.8, 0.8]]
OUTCOMES = [1.0, 0.0, 0.0, 1.0]
DEAD = "http://127.0.0.1:9"
"""No server listens there."""


def story(heading: str) -> Callable[[Story], Story]:
    """Register what produces the lines below a heading."""

    def register(produce: Story) -> Story:
        STORIES[heading] = produce
        return produce

    return register


def shown_lines() -> dict[str, list[str]]:
    """By heading, the page's blocks of output, each as one line."""
    found = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        blocks = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
        found[heading] = [" ".join(block.split()) for block in blocks]
    return found


def batch(scores: Any = SCORES, outcome: Any = OUTCOMES, **more: Any) -> sc.Rollouts:
    """Four responses of four tokens in two steps."""
    process = None if scores is None else sc.Steps([[1, 3]] * 4, scores)
    return sc.Rollouts(group=[0] * 4, lengths=[4] * 4, process=process, outcome=outcome, **more)


def said_of(rollouts: sc.Rollouts, method: sc.Estimator) -> str:
    """The warnings about a batch, and its metrics as a trainer's log has them."""
    figures = training_metrics(rollouts, method)
    lines = [f"CreditWarning: {line}" for line in credit_warnings(rollouts, figures).values()]
    lines += [f"'stepcredit/{name}': '{value:.4g}'" for name, value in figures.items()]
    return "\n".join(lines)


def trainer(folder: Path, config: dict[str, Any] | None = None, **changes: Any) -> Any:
    """TRL's trainer of ours with a tiny policy that writes sums."""
    policy = folder / "policy"
    if not policy.exists():
        save_language_model(policy, pieces=reward_pieces({"right": "maths"}, {}))
    rows = [{"prompt": f"{a} + {b} =", "answer": str(a + b)} for a, b in SUMS]
    settings = {
        "model": str(policy),
        "train_dataset": Dataset.from_list(rows),
        "reward_funcs": [right],
        "method": "pass",
        "process_signal": "arithmetic",
        "splitter": "newline",
        "args": GRPOConfig(
            output_dir=str(folder / "run"),
            max_steps=1,
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=96,
            logging_steps=1,
            **{**ON_CPU, **(config or {})},
        ),
    }
    return StepCreditGRPOTrainer(**{**settings, **changes})


def right(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    pairs = zip(completions, answer, strict=True)
    return [float(rf"\boxed{{{gold}}}" in text) for text, gold in pairs]


def error_of(run: Callable[[], Any]) -> str:
    """The line with which a run ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(StepCreditError) as caught:
            run()
    return str(caught.value)


@story("The policy pads: filler is paid")
def filler(folder: Path) -> str:
    path = folder / "rollouts.jsonl"
    rows = []
    for term in range(8):
        for padding in range(4):
            steps = [f"{term} + 2 = {term + 2 + (padding == 0)}.\n\n"]
            steps += ["Let me double-check this.\n\n"] * padding + ["So that is it."]
            rows.append(
                {
                    "group": str(term),
                    "prompt": f"{term} + 2?",
                    "text": "".join(steps),
                    "tokens": steps,
                    "step_ends": list(range(len(steps))),
                    "step_scores": [0.4, *[0.9] * padding, 0.5],
                    "outcome": float(padding > 0),
                }
            )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    audit = CliRunner().invoke(app, ["audit", str(path), "--method", "pass"])
    assert audit.exit_code == 0, audit.output
    return audit.output


@story("Responses become shorter and shorter")
def collapse(_: Path) -> str:
    ends = [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    process = sc.Steps(ends, [[-0.5] * len(each) for each in ends])
    rollouts = sc.Rollouts(group=[0] * 4, process=process, outcome=[1.0, 1.0, 1.0, 1.0])
    method = sc.PASS(operator="abs_max", scope="process", k=0.0)
    return said_of(rollouts, method)


@story("The format reward takes over")
def gate_share(_: Path) -> str:
    formats = {"format": OUTCOMES, "format_ok": [bool(each) for each in OUTCOMES]}
    return said_of(batch(**formats), sc.PASS())


@story("No response keeps the format, so nothing but the format is learned")
def all_gated(_: Path) -> str:
    return said_of(batch(format=[0.0] * 4, format_ok=[False] * 4), sc.PASS())


@story("The signal gives nearly the same score to everything")
def constant(_: Path) -> str:
    scores = [[0.501, 0.5], [0.5, 0.499], [0.5, 0.501], [0.502, 0.5]]
    return said_of(batch(scores), sc.PASS())


@story("All outcomes of a group are equal")
def equal_outcomes(_: Path) -> str:
    return said_of(batch(None, [1.0] * 4), sc.GRPO())


@story("Partial credit counts as right")
def partial(_: Path) -> str:
    return said_of(batch(outcome=[0.2, 0.5, 0.9, 0.4]), sc.PASS())


@story("The splitter never finds its mark")
def one_step(folder: Path) -> str:
    ours = trainer(folder, process_signal="arithmetic", splitter="turns")
    ours.train()
    return "\n".join(f"'stepcredit/{name}': '{value:.4g}'" for name, value in logged(ours).items())


def logged(ours: Any) -> dict[str, float]:
    """The credit's metrics of the last step."""
    last = next(log for log in reversed(ours.state.log_history) if "loss" in log)
    mark = "stepcredit/"
    return {name.removeprefix(mark): value for name, value in last.items() if mark in name}


@story("The reward does not find the answer")
def never_right(folder: Path) -> str:
    def after_hashes(completions: list[str], answer: list[str], **_: Any) -> list[float]:
        pairs = zip(completions, answer, strict=True)
        return [float(text.endswith(f"Answer: {gold}")) for text, gold in pairs]

    ours = trainer(folder, reward_funcs=[after_hashes])
    return "\n".join(ours.check().lines())


@story("The teacher has another tokenizer than the policy")
def other_tokenizer(folder: Path) -> str:
    save_language_model(folder / "teacher", pieces=TinyVocabulary((), ("7 = 7\n\n",), ("So 9",)))
    signal = sc.signal(
        "opd", teacher=str(folder / "teacher"), tokenizer=str(folder / "policy"), temperature=1.0
    )
    line = error_of(lambda: trainer(folder, process_signal=signal).train())
    return line.replace(f"{folder}/", "")


@story("A server dies while the run trains")
def dead_server(folder: Path) -> str:
    one_by_one = {"concurrency": 1, "attempts": 2, "backoff": 0.01}
    judge = sc.signal("judge", url=DEAD, model="my-judge", **one_by_one)
    ours = trainer(folder, process_signal=judge, splitter="newline", preflight=False)
    return error_of(ours.train)


@story("A checkpoint is resumed with another credit")
def other_credit(folder: Path) -> str:
    saving = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}
    trainer(folder, saving).train()
    place = str(folder / "run" / "checkpoint-1")
    ours = trainer(folder, method=sc.PASS(k=1.0))
    line = error_of(lambda: ours.train(resume_from_checkpoint=place))
    return line.replace(f"{folder}/", "")


@pytest.mark.parametrize("heading", shown_lines())
def test_the_code_prints_what_the_page_shows(
    heading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    printed = " ".join(STORIES[heading](tmp_path).split())
    blocks = shown_lines()[heading]
    assert blocks, "a story without a line"
    for line in blocks:
        assert line in printed


def test_every_story_is_on_the_page() -> None:
    assert set(STORIES) == set(shown_lines())
