"""Logs as trainers write them, broken by seed, beside what is true of them."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]
NAN = float("nan")


@dataclass(frozen=True)
class Truth:
    """What is true of one response.

    Args:
        text: all of it; own: what the policy wrote; both are unique in a log.
        outcome: None: unknown.
        score: the outcome as the log has it.
        prompt: as the log has it.
    """

    step: int
    group: int
    question: str
    text: str
    own: str
    outcome: float | None
    score: Any = None
    prompt: str = ""
    turns: tuple[Row, ...] = ()


@dataclass
class Log:
    """A log to be written, its truths in the order of its rows, and what was broken."""

    format: str
    truths: list[Truth]
    has_ids: bool = True
    kind: str = "jsonl"
    torn: bool = False
    broken: list[str] = field(default_factory=list)
    change: Callable[[Row], Row] = dict


PROMPTS = {
    "plain": "%s",
    "base": "Question: %s\nAnswer:",
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n%s<|im_end|>\n"
    "<|im_start|>assistant\n",
    "chatml stripped": "system\nBe brief.\nuser\n%s\nassistant\n",
    "llama": "<|start_header_id|>user<|end_header_id|>\n\n%s<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "llama stripped": "system\n\nToday.\n\nuser\n\n%sassistant\n\n",
    "gemma": "<start_of_turn>user\n%s<end_of_turn>\n<start_of_turn>model\n",
    "gemma stripped": "user\n%s\nmodel\n",
    "mistral": "[INST] %s [/INST]",
    "deepseek": "<｜User｜>%s<｜Assistant｜><think>\n",
    "unknown": "<|human|>%s<|bot|>",
}
TOOLS = {
    "chatml": "<|im_end|>\n<|im_start|>user\n<tool_response>\n%s\n</tool_response><|im_end|>\n"
    "<|im_start|>assistant\n",
    "chatml stripped": "\nuser\n<tool_response>\n%s\n</tool_response>\nassistant\n",
    "llama stripped": "ipython\n\n%sassistant\n\n",
    "mistral": "[TOOL_RESULTS] %s[/TOOL_RESULTS]",
    "search": "</search>\n\n<information>%s</information>\n\n",
    "result": "\n<result>%s</result>\n",
    "output": "\n```output\n%s\n```\n",
    "user": "\nuser\n%s\nassistant\n",
}
_OF_THE_POLICY = {"chatml": "<|im_end|>", "search": "</search>"}


def truths(draw: random.Random) -> list[Truth]:
    """A few steps of a few groups; texts differ, outcomes may not."""
    found, size = [], draw.choice([2, 3, 4])
    for step in range(1, draw.choice([2, 3])):
        for group in range(draw.choice([1, 2, 3])):
            for sample in range(size):
                text = f"answer {step}.{group}.{sample} = {draw.randint(0, 9)}"
                outcome = float(draw.choice([0, 1, 1, -1]))
                question = f"What is {step} + {group}?"
                found.append(Truth(step, group, question, text, text, outcome, outcome, question))
    return found


def make_log(seed: int) -> Log:
    """A log of some format with some faults."""
    draw = random.Random(seed)
    log = Log(draw.choice(list(WRITERS)), truths(draw))
    for fault in draw.sample(list(FAULTS), draw.choice([0, 1, 2, 3])):
        if FAULTS[fault](log, draw):
            log.broken.append(fault)
    log.kind = draw.choice(["jsonl", "jsonl", "jsonl.gz", "json", "pretty.json", "parquet"])
    return log


def _some(log: Log, draw: random.Random) -> int:
    return draw.randrange(len(log.truths))


def _set(log: Log, at: int, **changes: Any) -> bool:
    log.truths[at] = replace(log.truths[at], **changes)
    return True


def scatter(log: Log, draw: random.Random) -> bool:
    """Rows of a prompt do not stand together, as after balancing a batch."""
    if log.format not in ONE_ROW_EACH:
        return False
    draw.shuffle(log.truths)
    return True


def same_prompt(log: Log, draw: random.Random) -> bool:
    """Two groups of one step have the same prompt."""
    if any(truth.question != truth.prompt for truth in log.truths):
        return False
    log.truths = [
        replace(truth, question="Again?", prompt="Again?") if truth.group < 2 else truth
        for truth in log.truths
    ]
    return True


def no_ids(log: Log, draw: random.Random) -> bool:
    """The log has no ids of groups."""
    log.has_ids = False
    return True


def empty(log: Log, draw: random.Random) -> bool:
    """A response holds nothing."""
    return _set(log, _some(log, draw), text="", own="", turns=())


def unknown_reward(log: Log, draw: random.Random) -> bool:
    """A reward is none, or no number."""
    score = draw.choice([None, NAN, float("inf"), "right"])
    return _set(log, _some(log, draw), score=score, outcome=None)


def unknown_group(log: Log, draw: random.Random) -> bool:
    """The rewards of a whole group are none."""
    chosen = log.truths[_some(log, draw)]
    score = draw.choice([None, NAN])
    for at, truth in enumerate(log.truths):
        if (truth.step, truth.group) == (chosen.step, chosen.group):
            _set(log, at, score=score, outcome=None)
    return True


def reward_as_text(log: Log, draw: random.Random) -> bool:
    """Rewards are numbers written as text."""
    for at, truth in enumerate(log.truths):
        if truth.outcome is not None:
            _set(log, at, score=str(truth.outcome))
    return True


def template(log: Log, draw: random.Random) -> bool:
    """Prompts are in a chat template."""
    form = PROMPTS[draw.choice(list(PROMPTS))]
    for at, truth in enumerate(log.truths):
        asked = form % truth.question
        question = asked if form == PROMPTS["base"] else truth.question
        _set(log, at, prompt=asked, question=question)
    return True


def tool(log: Log, draw: random.Random) -> bool:
    """A response holds a tool's answer."""
    at, name = _some(log, draw), draw.choice(list(TOOLS))
    if log.format in ("slime-samples", "messages") or log.truths[at].turns:
        return False
    before, behind = f"I call {at}.", f"So it is {at}."
    answer = TOOLS[name] % f"5 + {at} = 11"
    own = before + _OF_THE_POLICY.get(name, "") + behind
    return _set(log, at, text=before + answer + behind, own=own)


def tool_calls(log: Log, draw: random.Random) -> bool:
    """An agent's turns, with its call or its reasoning in a field of its own."""
    if log.format not in ("trl-completions", "verifiers-results", "messages"):
        return False
    at = _some(log, draw)
    call = {"type": "function", "function": {"name": f"add{at}", "arguments": '{"a": "x"}'}}
    first = {"role": "assistant", "content": "", "tool_calls": [call]}
    if draw.random() < 0.5:
        first = {"role": "assistant", "content": "", "reasoning_content": f"I think {at}."}
    turns = (
        first,
        {"role": "tool", "content": "11"},
        {"role": "assistant", "content": f"So {at}."},
    )
    return _set(log, at, turns=turns, text="", own=f"So {at}.")


def nan_column(log: Log, draw: random.Random) -> bool:
    """Another column holds NaN in some rows."""
    if log.format not in ONE_ROW_EACH:
        return False
    before = log.change
    log.change = lambda row: {**before(row), "entropy": draw.choice([NAN, 0.5])}
    return True


def lost_field(log: Log, draw: random.Random) -> bool:
    """A row has lost one of its fields."""
    before, at = log.change, draw.randrange(len(log.truths))
    count = iter(range(10**6))
    name = draw.choice(["output", "completion", "response", "code", "messages", "rollouts"])

    def change(row: Row) -> Row:
        row = before(row)
        if next(count) == at:
            row.pop(name, None)
        return row

    log.change = change
    return True


def other_order(log: Log, draw: random.Random) -> bool:
    """Fields come in another order."""
    before = log.change
    log.change = lambda row: dict(reversed(before(row).items()))
    return True


def torn(log: Log, draw: random.Random) -> bool:
    """The last line is cut off, as after a kill."""
    log.torn = True
    return True


FAULTS: dict[str, Callable[[Log, random.Random], bool]] = {
    each.__name__: each
    for each in (
        scatter,
        same_prompt,
        no_ids,
        empty,
        unknown_reward,
        unknown_group,
        reward_as_text,
        template,
        tool,
        tool_calls,
        nan_column,
        lost_field,
        other_order,
        torn,
    )
}


def _verl(log: Log) -> list[Row]:
    rows = []
    for at, truth in enumerate(log.truths):
        row = {"input": truth.prompt, "output": truth.text, "gts": "7", "score": truth.score}
        row |= {"step": truth.step}
        rows.append(row | ({"uid": f"s{truth.group}_{at}_0"} if log.has_ids else {}))
    return rows


def _said(truth: Truth, messages: bool) -> Any:
    if truth.turns:
        return list(truth.turns)
    return [{"role": "assistant", "content": truth.text}] if messages else truth.text


def _trl(log: Log) -> list[Row]:
    messages = any(truth.turns for truth in log.truths)
    return [
        {
            "step": truth.step,
            "prompt": [{"role": "user", "content": truth.prompt}] if messages else truth.prompt,
            "completion": _said(truth, messages),
            "right": truth.score,
            "advantage": 0.5,
        }
        for truth in log.truths
    ]


def _swift(log: Log) -> list[Row]:
    rows = []
    for step in dict.fromkeys(truth.step for truth in log.truths):
        own = [truth for truth in log.truths if truth.step == step]
        row = {
            "gen_step": [step] * len(own),
            "prompt": [truth.prompt for truth in own],
            "completion": [truth.text for truth in own],
            "Accuracy": [truth.score for truth in own],
        }
        ids = {"prompt_id": [truth.group for truth in own]} if log.has_ids else {}
        rows.append(row | ids)
    return rows


def _verifiers(log: Log) -> list[Row]:
    return [
        {
            "prompt": truth.prompt,
            "completion": _said(truth, True),
            "answer": "7",
            "reward": truth.score,
            "task": "t",
        }
        | ({"example_id": 100 * truth.step + truth.group} if log.has_ids else {})
        for truth in log.truths
    ]


def _groups(log: Log) -> list[list[Truth]]:
    names = dict.fromkeys((truth.step, truth.group) for truth in log.truths)
    return [[each for each in log.truths if (each.step, each.group) == name] for name in names]


def _qwen(log: Log) -> list[Row]:
    return [
        {
            "idx": at,
            "question": group[0].prompt,
            "gt": "7",
            "code": [truth.text for truth in group],
            "score": [truth.score for truth in group],
        }
        for at, group in enumerate(_groups(log))
    ]


def _rollouts(log: Log) -> list[Row]:
    return [
        {
            "question": group[0].prompt,
            "gold": "7",
            "rollouts": [{"text": truth.text, "reward": truth.score} for truth in group],
        }
        for group in _groups(log)
    ]


def _slime(log: Log) -> list[Row]:
    return [
        {
            "index": at,
            "prompt": truth.prompt,
            "response": truth.text,
            "tokens": [1, 2, 3, 4] if truth.text else [1, 2],
            "response_length": 2 if truth.text else 0,
            "label": "7",
            "reward": truth.score,
            "rollout_id": truth.step,
        }
        | ({"group_index": truth.group} if log.has_ids else {})
        for at, truth in enumerate(log.truths)
    ]


def _messages(log: Log) -> list[Row]:
    return [
        {
            "messages": [{"role": "user", "content": truth.prompt}, *_said(truth, True)],
            "reward": truth.score,
            "step": truth.step,
        }
        for truth in log.truths
    ]


WRITERS: dict[str, Callable[[Log], list[Row]]] = {
    "verl-rollouts": _verl,
    "trl-completions": _trl,
    "swift-completions": _swift,
    "verifiers-results": _verifiers,
    "qwen-eval": _qwen,
    "question-rollouts": _rollouts,
    "slime-samples": _slime,
    "messages": _messages,
}
ONE_ROW_EACH = (
    "verl-rollouts",
    "trl-completions",
    "verifiers-results",
    "slime-samples",
    "messages",
)


def write_log(log: Log, folder: Path) -> Path:
    """Write the log; what Arrow can't hold in one column is written as JSON Lines."""
    rows = [log.change(row) for row in WRITERS[log.format](log)]
    path = folder / f"log.{log.kind}"
    if log.kind == "parquet":
        try:
            pq.write_table(pa.Table.from_pylist(rows), path)
        except pa.ArrowException:
            log.kind, path = "jsonl", folder / "log.jsonl"
    if log.kind == "json":
        path.write_text(json.dumps(rows))
    elif log.kind == "pretty.json":
        path.write_text(json.dumps(rows, indent=1))
    elif log.kind != "parquet":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        text = text[:-9] if log.torn else text
        raw = text.encode()
        path.write_bytes(gzip.compress(raw) if log.kind.endswith("gz") else raw)
    return path
