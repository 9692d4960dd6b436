"""What scoring steps costs: a process reward model's signal beside the bare model's forward.

    python benchmarks/scoring.py            two tables
    python benchmarks/scoring.py --json     one JSON object, the ratios first
    python benchmarks/scoring.py --quick    a small body and few responses: does it run?

The body has SmolLM2-135M's shape and random weights; the head is Qwen2.5-Math-PRM's. Signal and
bare forward take turns over the same responses, batch by batch: the bare model is given the very
tensors that the signal padded, and nothing else. What is over it is tokenization, packing, the
head and the hand-over of scores. Then the same text is cut into 1 to 64 steps. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
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


FULL = Load(SMOLLM2, responses=64, tokens=512, rounds=3)
QUICK = Load(SMALL, responses=8, tokens=256, rounds=2)


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
    from stepcredit.signals.prm import QwenMathPRM
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

    from stepcredit.signals.prm import HeadedModel, LocalPRM, TwoLayerHead

    torch.manual_seed(0)
    body = LlamaModel(LlamaConfig(**load.body)).eval()
    model = HeadedModel(body, TwoLayerHead(load.body["hidden_size"])).eval()
    return LocalPRM(model, "qwen2.5-math-prm", tokenizer=tokenizer, max_tokens_per_batch=8192)


def forwards(signal: Any, responses: list[Any]) -> list[dict[str, Any]]:
    """The inputs of every forward that scoring runs, recorded as it runs."""
    seen: list[dict[str, Any]] = []

    def note(_: Any, __: Any, given: dict[str, Any]) -> None:
        seen.append(given)

    handle = signal.scorer.body.register_forward_pre_hook(note, with_kwargs=True)
    signal.scores(responses)
    handle.remove()
    return seen


def race(runners: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, run in runners.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    return times


def against_bare(load: Load) -> dict[str, Any]:
    """The signal and the bare forward over the same padded tokens."""
    import torch

    tokenizer = build_tokenizer()
    signal = build_signal(load, tokenizer)
    responses = split_responses(load, 12, tokenizer)
    batches = forwards(signal, responses)

    @torch.inference_mode()
    def bare() -> None:
        for batch in batches:
            signal.scorer.body(**batch)

    times = race({"signal": lambda: signal.scores(responses), "bare": bare}, load.rounds)
    padded = sum(batch["input_ids"].numel() for batch in batches)
    return {
        "forwards": len(batches),
        "padded tokens": padded,
        "tokens": sum(int(batch["attention_mask"].sum()) for batch in batches),
        "seconds": {name: round(median(of), 3) for name, of in times.items()},
        "speed": median(b / s for s, b in zip(times["signal"], times["bare"], strict=True)),
    }


def by_steps(load: Load) -> dict[int, float]:
    """Seconds a response, the same number of tokens cut into more and more steps."""
    tokenizer = build_tokenizer()
    signal = build_signal(load, tokenizer)
    few = Load(load.body, max(4, load.responses // 8), load.tokens, load.rounds)
    runners: dict[str, Callable[[], Any]] = {}
    for steps in CUTS:
        responses = split_responses(few, steps, tokenizer)
        runners[str(steps)] = lambda given=responses: signal.scores(given)
    times = race(runners, load.rounds)
    return {steps: median(times[str(steps)]) / few.responses for steps in CUTS}


def report(bare: dict[str, Any], steps: dict[int, float], found: dict[str, float]) -> None:
    """What was run, the cost by steps, and the ratios with their bars."""
    from rich.console import Console
    from rich.table import Table

    seconds = bare["seconds"]
    told = Table(title="the same padded tokens", title_justify="left")
    for heading in ("forwards", "tokens", "padded", "signal, s", "bare, s"):
        told.add_column(heading, justify="right")
    counts = (bare["forwards"], bare["tokens"], bare["padded tokens"])
    told.add_row(*map(str, counts), f"{seconds['signal']:.2f}", f"{seconds['bare']:.2f}")
    cost = Table(title="milliseconds a response, by steps", title_justify="left")
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
