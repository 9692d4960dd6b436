"""The server's models: formulas of what they are asked, and their answers in each protocol.

The tests compute the same numbers from the responses' texts; see `truth.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Answer = dict[str, Any]


def spoiled(rows: list[Any], fault: str | None) -> list[Any]:
    """Rows of an answer with one dropped or added."""
    if fault == "drop":
        return rows[:-1]
    return [*rows, rows[-1]] if fault == "add" else rows


def pooling(question: Answer, setting: Answer, fault: str | None) -> Answer:
    """vLLM's `/pooling`: two probabilities at each tag, or at each token."""
    assert question["task"] == "token_classify"
    ids, tag = question["input"], setting.get("step_tag_id")
    rows, total = [], setting.get("shift", 0)
    for id in ids:
        total += id
        if tag is None or id == tag:
            right = total % 997 / 997
            rows.append([1 - right, right])
    if fault == "nan":
        rows[0] = [math.nan, math.nan]
    if fault == "null":
        rows[0] = [None, None]
    if fault == "range":
        rows[0] = [-3.5, 4.5]
    if fault == "logits":
        rows[0] = [0.25, 0.9]
    rows = spoiled(rows, fault)
    data = [{"index": 0, "object": "pooling", "data": rows}]
    return {"id": "pool-1", "object": "list", "model": question["model"], "data": data}


def logprob(ids: list[int], place: int) -> float:
    """The log-prob of a token, from it and the sum of those before it."""
    return -((31 * ids[place] + sum(ids[:place])) % 1009) / 100


def entries(ids: list[int], setting: Answer, fault: str | None) -> list[tuple[Any, int, str]]:
    """(log-prob, id, text) of a prompt's tokens."""
    alphabet, total, rows = setting["alphabet"], ids[0], [(None, ids[0], "")]
    for id in ids[1:]:
        rows.append((-((31 * id + total) % 1009) / 100, id, alphabet[id]))
        total += id
    value = {"nan": math.nan, "null": None, "never": -9999.0, "range": 0.5}.get(fault or "", 0)
    if value != 0:
        rows[-1] = (value, *rows[-1][1:])
    if fault == "ids":
        rows[-1] = (rows[-1][0], rows[-1][1] + 1, rows[-1][2])
    if fault == "shift":
        rows = [(-1.0, ids[0], alphabet[ids[0]]), *rows[1:]]
    if setting.get("silent"):
        rows = [(value, id, None) for value, id, _ in rows]
    return spoiled(rows, fault)


def completions(question: Answer, setting: Answer, fault: str | None) -> Answer:
    """vLLM's `/v1/completions` with `prompt_logprobs=0`."""
    assert question["prompt_logprobs"] == 0
    assert question["max_tokens"] == 1
    told: list[Any] = []
    for value, id, text in entries(question["prompt"], setting, fault):
        entry = {str(id): {"logprob": value, "rank": 1, "decoded_token": text}}
        told.append(entry if told or value is not None else None)
    choice = {"index": 0, "text": "x", "logprobs": None, "prompt_logprobs": told}
    return {"id": "cmpl-1", "object": "text_completion", "choices": [choice]}


def generate(question: Answer, setting: Answer, fault: str | None) -> Answer:
    """SGLang's `/generate` with `return_logprob`."""
    assert question["return_logprob"]
    assert question["sampling_params"]["max_new_tokens"] == 0
    start = question["logprob_start_len"]
    told = entries(question["input_ids"], setting, fault)[start:]
    if not question.get("return_text_in_logprobs"):
        told = [(value, id, None) for value, id, _ in told]
    return {"text": "", "meta_info": {"input_token_logprobs": told, "prompt_tokens": len(told)}}


def yes_chance(asked: str, vote: int = 0) -> float:
    """P(Yes) of a question."""
    return (sum(map(ord, asked)) * (vote + 1) % 101 + 1) / 103


def token(text: str, told: dict[str, float]) -> Answer:
    """A generated token with its most likely alternatives."""
    top = [{"token": other, "logprob": value, "bytes": None} for other, value in told.items()]
    return {"token": text, "logprob": told.get(text, -0.5), "top_logprobs": top}


def verdict(asked: str, vote: int, setting: Answer) -> Answer:
    """A token with the verdict: two spellings of Yes share its probability with No and more."""
    yes, no, chance = setting.get("yes", "Yes"), setting.get("no", "No"), yes_chance(asked, vote)
    if setting.get("undecided"):
        return token("Hm", {"Hm": -0.1, "Well": -2.5})
    told = {
        yes: math.log(0.5 * chance * 0.75),
        f" {yes.lower()}": math.log(0.5 * chance * 0.25),
        no: math.log(0.5 * (1 - chance)),
        "Perhaps": math.log(0.5),
    }
    return token(yes if chance >= 0.5 else no, told)


def chat(question: Answer, setting: Answer, fault: str | None) -> Answer:
    """OpenAI's `/v1/chat/completions` with log-probs."""
    asked = question["messages"][-1]["content"]
    choices = []
    for vote in range(question["n"]):
        tokens = written(asked, vote, setting)
        if fault == "nan":
            tokens[-1]["top_logprobs"][0]["logprob"] = math.nan
        content = "".join(token["token"] for token in tokens)
        told = {"content": tokens} if question.get("logprobs") and fault != "null" else None
        message = {"role": "assistant", "content": content}
        choices.append({"index": vote, "message": message, "logprobs": told})
    counted = {"usage": setting["usage"]} if "usage" in setting else {}
    rows = spoiled(choices, fault)
    return {"id": "chat-1", "object": "chat.completion", "choices": rows, **counted}


def written(asked: str, vote: int, setting: Answer) -> list[Answer]:
    """The tokens a judge writes: a verdict, one after reasoning, or a line a step."""
    if "says" in setting:
        text = setting["says"][vote % len(setting["says"])]
        return [token(text, {text: -0.1})]
    lines = setting.get("lines")
    before = [token(text, {text: -0.1}) for text in setting.get("reasoning", [])]
    if lines is None:
        return [*before, verdict(asked, vote, setting)]
    tokens = before
    for number in range(1, lines + 1):
        tokens += [token(text, {text: -0.1}) for text in (str(number), ":", " ")]
        tokens += [verdict(f"{asked}{number}", vote, setting), token("\n", {"\n": -0.1})]
    return tokens


ENDPOINTS: dict[str, Callable[[Answer, Answer, str | None], Answer]] = {
    "/pooling": pooling,
    "/v1/completions": completions,
    "/v1/chat/completions": chat,
    "/generate": generate,
}
