"""What scoring steps costs: a process reward model's signal beside the bare model's forward.

    python benchmarks/scoring.py            two tables
    python benchmarks/scoring.py --json     one JSON object, the ratios first
    python benchmarks/scoring.py --quick    a small body and few responses: does it run?

The body has SmolLM2-135M's shape and random weights; the head is Qwen2.5-Math-PRM's. Signal and
bare forward take turns, a forward's worth of responses at a time: the bare model is given the very
tensors that the signal padded, and nothing else. What is over it is tokenization, packing, the
head and the hand-over of scores. Then inputs of equal length are cut into 1 to 64 steps.

One thread, and seconds of its own CPU time: what else runs on the machine counts little.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any

SETTINGS = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
SMOLLM2 = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
}
SMALL = {**SMOLLM2, "hidden_size": 144, "num_hidden_layers": 4, "intermediate_size": 384}
CUTS = (1, 4, 16, 64)
BARS = {
    "speed of the signal / the bare forward": 0.85,
    "cost of 64 steps / of 1": 1.1,
}
CHAT = (
    "{% for turn in messages %}{{ '<|im_start|>' + turn['role'] + '\n' + turn['content'] + "
    "'<|im_end|>\n' }}{% endfor %}"
)


@dataclass(frozen=True)
class Load:
    """How much is scored."""

    body: dict[str, int]
    responses: int
    tokens: int
    rounds: int


FULL = Load(SMOLLM2, responses=64, tokens=512, rounds=2)
QUICK = Load(SMALL, responses=32, tokens=256, rounds=4)
A_FORWARD = 16
"""Responses in one forward."""


def build_tokenizer() -> Any:
    """Byte-level pieces and the chat's special tokens: as slow to run as a real one."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|im_start|>", "<|im_end|>", "<extra_0>"],
        show_progress=False,
    )
    backend.train_from_iterator([text_of(400, 1, seed) for seed in range(20)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=CHAT)


def text_of(words: int, steps: int, seed: int) -> str:
    """So many words in so many steps of equal length."""
    from random import Random

    choose = Random(seed).choices
    vocabulary = ["so", "the", "sum", "of", "eggs", "is", "+", "=", "then", "we", "sell", "day"]
    written = choose(vocabulary, k=words)
    cuts = [round(words * step / steps) for step in range(steps + 1)]
    parts = [" ".join(written[a:b]) for a, b in pairwise(cuts)]
    return ".\n\n".join(parts)


def split_responses(load: Load, steps: int, tokenizer: Any) -> list[Any]:
    """Responses in so many steps, which with prompt and tags are the load's tokens to the model."""
    from stepcredit.prm import QwenMathPRM
    from stepcredit.signals.responses import Response
    from stepcredit.signals.splitting import splitter

    split, asked, found = splitter("blank-line"), QwenMathPRM(), []
    for seed in range(load.responses):
        words, over = load.tokens, load.tokens
        while over > 0:
            text = text_of(words, steps, seed)
            response = split.split(Response.of_text("How many eggs?", text, name=str(seed)))
            reading = asked.encode(tokenizer, response.prompt, response.step_texts)
            over = len(reading.ids) - load.tokens
            words -= max(1, over // 2)
        found.append(response)
    return found


def build_signal(load: Load, tokenizer: Any) -> Any:
    """The signal over a random body with Qwen2.5-Math-PRM's head."""
    import torch
    from transformers import LlamaConfig, LlamaModel

    from stepcredit.prm import HeadedModel, LocalPRM, TwoLayerHead

    torch.manual_seed(0)
    body = LlamaModel(LlamaConfig(**load.body)).eval()
    model = HeadedModel(body, TwoLayerHead(load.body["hidden_size"])).eval()
    return LocalPRM(model, "qwen2.5-math-prm", tokenizer=tokenizer)


def seconds(run: Callable[[], Any]) -> float:
    """CPU seconds of one run."""
    began = time.process_time()
    run()
    return time.process_time() - began


@contextmanager
def recorded(body: Any) -> Iterator[list[dict[str, Any]]]:
    """The inputs of every forward that a body runs."""
    seen: list[dict[str, Any]] = []

    def note(_: Any, __: Any, given: dict[str, Any]) -> None:
        seen.append(given)

    handle = body.register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    handle.remove()


def against_bare(load: Load) -> dict[str, Any]:
    """The signal and the bare forward over the same padded tokens, in turns."""
    import torch

    tokenizer = build_tokenizer()
    signal = build_signal(load, tokenizer)
    responses = split_responses(load, 12, tokenizer)
    body = signal.scorer.body
    parts = [responses[at : at + A_FORWARD] for at in range(0, len(responses), A_FORWARD)]
    times: dict[str, list[float]] = {"signal": [], "bare": []}
    padded = 0

    @torch.inference_mode()
    def bare(batches: list[dict[str, Any]]) -> None:
        for batch in batches:
            body(**batch)

    signal.scores(responses[:2])
    for _ in range(load.rounds):
        for part in parts:
            with recorded(body) as batches:
                times["signal"].append(seconds(lambda given=part: signal.scores(given)))
            times["bare"].append(seconds(lambda given=batches: bare(given)))
            padded += sum(batch["input_ids"].numel() for batch in batches)
    pairs = zip(times["signal"], times["bare"], strict=True)
    return {
        "padded tokens": padded // load.rounds,
        "seconds": {name: round(sum(of) / load.rounds, 2) for name, of in times.items()},
        "speed": median(bare / signal for signal, bare in pairs),
    }


def by_steps(load: Load) -> dict[int, float]:
    """Seconds per response, inputs of equal length cut into more and more steps."""
    tokenizer = build_tokenizer()
    signal = build_signal(load, tokenizer)
    few = replace(load, responses=A_FORWARD // 2)
    inputs = {steps: split_responses(few, steps, tokenizer) for steps in CUTS}
    times: dict[int, list[float]] = {steps: [] for steps in CUTS}
    signal.scores(inputs[1][:2])
    for _ in range(load.rounds):
        for steps, responses in inputs.items():
            times[steps].append(seconds(lambda given=responses: signal.scores(given)))
    return {steps: median(of) / few.responses for steps, of in times.items()}


def report(bare: dict[str, Any], steps: dict[int, float], found: dict[str, float]) -> None:
    """What was run, the cost by steps, and the ratios with their bars."""
    from rich.console import Console
    from rich.table import Table

    told = Table(title="CPU seconds over the same padded tokens", title_justify="left")
    for heading in ("padded tokens", "signal", "bare"):
        told.add_column(heading, justify="right")
    told.add_row(str(bare["padded tokens"]), *(f"{of:.2f}" for of in bare["seconds"].values()))
    cost = Table(title="CPU milliseconds per response, by steps", title_justify="left")
    for cut in steps:
        cost.add_column(str(cut), justify="right")
    cost.add_row(*[f"{of * 1e3:.0f}" for of in steps.values()])
    bars = Table(title="ratios", title_justify="left")
    for heading in ("", "measured", "bar", ""):
        bars.add_column(heading, justify="left" if not heading else "right")
    for name, bar in BARS.items():
        sign = ">=" if name.startswith("speed") else "<="
        bars.add_row(name, f"{found[name]:.3f}", f"{sign} {bar:g}", is_met(name, found[name]))
    Console().print(told, cost, bars)


def is_met(name: str, value: float) -> str:
    """Whether a ratio is on the right side of its bar."""
    good = value >= BARS[name] if name.startswith("speed") else value <= BARS[name]
    return "met" if good else "MISSED"


def main() -> None:
    """Parse the options, start anew under `SETTINGS`, race, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object and nothing else"
    )
    parser.add_argument("--quick", action="store_true", help="a small body, few responses")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in SETTINGS.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **SETTINGS})
    import torch

    torch.set_num_threads(1)
    load = QUICK if options.quick else FULL
    bare, steps = against_bare(load), by_steps(load)
    found = {
        "speed of the signal / the bare forward": round(bare["speed"], 3),
        "cost of 64 steps / of 1": round(steps[64] / steps[1], 3),
    }
    if options.json:
        print(json.dumps({"ratios": found, "bars": BARS, "bare": bare, "by steps": steps}))
    else:
        report(bare, steps, found)


if __name__ == "__main__":
    main()
