"""Reward models scored slowly, from their cards: the input written by hand, one forward a step.

Each function takes a model, its tokenizer, a question and bare steps (no delimiters) and scores
step after step, each time from a new input that ends with that step. It imports nothing of ours.
"""

from __future__ import annotations

from typing import Any

import torch

SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


def qwen_input(question: str, steps: list[str]) -> str:
    """What Qwen2.5-Math-PRM-7B's card gives the tokenizer."""
    written = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
    written += f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    return written + "<extra_0>".join(steps) + "<extra_0><|im_end|>\n"


@torch.no_grad()
def qwen(model: Any, tokenizer: Any, question: str, steps: list[str]) -> list[float]:
    """Qwen2.5-Math-PRM-7B's card; ReasonFlux's default template says the same system turn."""
    scores = []
    tag = tokenizer.encode("<extra_0>")[0]
    for count in range(1, len(steps) + 1):
        ids = tokenizer.encode(qwen_input(question, steps[:count]))
        logits = model(torch.tensor([ids]))[0]
        probabilities = torch.softmax(logits, dim=-1)
        at = max(i for i, token in enumerate(ids) if token == tag)
        scores.append(probabilities[at, 1].item())
    return scores


@torch.no_grad()
def math_shepherd(model: Any, tokenizer: Any, question: str, steps: list[str]) -> list[float]:
    """math-shepherd-mistral-7b-prm's card."""
    candidates = tokenizer.encode("+ -")[1:]
    tag = tokenizer.encode("ки")[-1]
    scores = []
    for count in range(1, len(steps) + 1):
        written = question + " " + "\n".join(step + " ки" for step in steps[:count])
        ids = torch.tensor([tokenizer.encode(written)])
        logits = model(ids).logits[:, :, candidates]
        of_all_tags = logits.softmax(dim=-1)[:, :, 0][ids == tag]
        scores.append(of_all_tags[-1].item())
    return scores


@torch.no_grad()
def rlhflow(model: Any, tokenizer: Any, question: str, steps: list[str]) -> list[float]:
    """RLHF-Reward-Modeling's `prm_evaluate.py`: the conversation so far, read 3 from its end."""
    candidates = [tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]]
    header = "<|start_header_id|>{}<|end_header_id|>\n\n"
    written = "<|begin_of_text|>" + header.format("system")
    written += "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
    scores = []
    for index, step in enumerate(steps):
        said = f"{question} {step}" if index == 0 else step
        written += header.format("user") + said.strip() + "<|eot_id|>"
        written += header.format("assistant") + "+<|eot_id|>"
        ids = torch.tensor([tokenizer.encode(written, add_special_tokens=False)])
        logits = model(ids).logits[:, -3, candidates]
        scores.append(logits.softmax(dim=-1)[0, 0].item())
    return scores


@torch.no_grad()
def skywork(model: Any, tokenizer: Any, question: str, steps: list[str]) -> list[float]:
    """skywork-o1-prm-inference's `prepare_input` and `derive_step_rewards`."""
    newline = tokenizer.encode("\n")[-1]
    ids = tokenizer.encode(tokenizer.bos_token + question + "\n")
    scores = []
    for step in steps:
        ids = ids + (tokenizer.encode(step) if step else []) + [newline]
        scores.append(torch.sigmoid(model(torch.tensor([ids]))[0, -1]).item())
    return scores


@torch.no_grad()
def pure(model: Any, tokenizer: Any, question: str, steps: list[str]) -> list[float]:
    """PURE-PRM-7B's card, before it weighs the steps."""
    ids = tokenizer(question, add_special_tokens=False)["input_ids"]
    scores = []
    for step in steps:
        ids = ids + tokenizer(step.rstrip(), add_special_tokens=False)["input_ids"]
        ids = ids + tokenizer("\n", add_special_tokens=False)["input_ids"]
        probabilities = model(torch.tensor([ids])).logits[0, -1].softmax(dim=-1)
        scores.append((probabilities[1] - probabilities[0]).item())
    return scores


@torch.no_grad()
def token_classifier(model: Any, tokenizer: Any, question: str, steps: list[str]) -> list[float]:
    """TRL's `PRMTrainer.tokenize_row` with its default separator, and class 1's probability."""
    first = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids = first + tokenizer(question, add_special_tokens=False)["input_ids"]
    scores = []
    for step in steps:
        ids = ids + tokenizer(step, add_special_tokens=False)["input_ids"]
        ids = ids + tokenizer.encode("\n", add_special_tokens=False)
        scores.append(model(torch.tensor([ids])).logits[0, -1].softmax(dim=-1)[1].item())
    return scores
