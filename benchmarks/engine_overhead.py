"""The share of a TRL training step that stepcredit takes: splitting, advantages, metrics.

    python benchmarks/engine_overhead.py              SmolLM2-135M's shape, 64 x 256 tokens
    python benchmarks/engine_overhead.py --layers 2   a smaller model, so a larger share
    python benchmarks/engine_overhead.py --json       one JSON object

It runs real steps of `StepCreditGRPOTrainer` with a random policy, on the accelerator if there is
one. It counts all that our trainer adds to TRL's, except the time in which the signal scores. It
measures once with one score per step and once with one score per token; the first training step is
not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from stepcredit.engines.trl import trainer as trl
from stepcredit.signals.programs.checked import Program

VOCABULARY, PARAGRAPH = 49152, 40
BAR = 1.0
PARTS = {
    "split and align": "process_streams",
    "texts for metrics": "response_and_step_texts",
    "gather": "all_gather",
    "metrics": "training_metrics",
}


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of as many invented words as SmolLM2 has tokens; each 40th ends a paragraph."""
    words = {
        f"w{n}" + (".\n\n" if n % PARAGRAPH == 0 else " "): n for n in range(VOCABULARY - 3)
    } | {"<end>": VOCABULARY - 3, "<pad>": VOCABULARY - 2, "<unk>": VOCABULARY - 1}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<end>", pad_token="<pad>", unk_token="<unk>"
    )


def policy(layers: int) -> LlamaForCausalLM:
    """A model of SmolLM2-135M's shape, with random weights."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=layers,
            num_attention_heads=9,
            num_key_value_heads=3,
            tie_word_embeddings=True,
            max_position_embeddings=2048,
        )
    )


class Clock:
    """Seconds by part, each without the parts that it called."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._within = [0.0]

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time added to a part."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            self._within.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.perf_counter() - start
                self.seconds[part] += spent - self._within.pop()
                self._within[-1] += spent

        return wrapped


@contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """Measure the trainer's parts, and TRL's own part of the hook."""
    places = [(trl, name, part) for part, name in PARTS.items()]
    places += [
        (trl.StepCreditGRPOTrainer, "_rollouts", "rollouts"),
        (trl.StepCreditGRPOTrainer, "_generate_and_score_completions", "advantages and the rest"),
        (GRPOTrainer, "_generate_and_score_completions", "trl"),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, part in places:
        setattr(owner, name, clock.timed(part, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def measured(grain: str, args: argparse.Namespace) -> dict[str, float]:
    """Seconds per training step by part; `step` is the total, `ours` what our trainer adds."""
    clock = Clock()
    scores = {
        "steps": lambda response: [float(len(text) % 7) for text in response.step_texts],
        "tokens": lambda response: [float(token % 13) for token in response.token_ids],
    }
    signal = Program(clock.timed("signal", scores[grain]), per=grain)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(signal, folder, args)
        trainer.args.max_steps = 1
        trainer.train()
        trainer.args.max_steps = args.steps
        clock.seconds.clear()
        with watched(clock):
            start = time.perf_counter()
            trainer.train()
            total = time.perf_counter() - start
    parts = {name: seconds / args.steps for name, seconds in clock.seconds.items()}
    apart = {name: parts.pop(name) for name in ("trl", "signal")}
    return {**parts, "ours": sum(parts.values()), **apart, "step": total / args.steps}


def build_trainer(
    signal: Program, folder: str, args: argparse.Namespace
) -> trl.StepCreditGRPOTrainer:
    """A trainer on prompts of ten words; an update is one batch of all rows, in parts of 8."""
    torch.manual_seed(0)
    parts = max(1, args.rows // 8)
    config = GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=args.rows // parts,
        gradient_accumulation_steps=parts,
        num_generations=min(8, args.rows),
        max_completion_length=args.tokens,
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    words = tokenizer()
    prompts = [{"prompt": "".join(f"w{n + 1} " for n in range(row, row + 10))} for row in range(64)]
    trainer = trl.StepCreditGRPOTrainer(
        model=policy(args.layers),
        reward_funcs=[lambda completions, **_: [float(len(text) % 5) for text in completions]],
        args=config,
        train_dataset=Dataset.from_list(prompts),
        processing_class=words,
        process_signal=signal,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def table(grain: str, parts: dict[str, float]) -> str:
    """The figures as lines of text."""
    lines = [f"one score per {grain[:-1]}: {share(parts):.3f} % of a step of {parts['step']:.2f} s"]
    for name in (*PARTS, "rollouts", "advantages and the rest", "ours"):
        lines.append(f"  {name:<24}{1e3 * parts[name]:9.2f} ms")
    return "\n".join(lines)


def share(parts: dict[str, float]) -> float:
    """Our share of a training step, in percent."""
    return 100 * parts["ours"] / parts["step"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=64, help="responses per training step")
    parser.add_argument("--tokens", type=int, default=256, help="tokens per response")
    parser.add_argument(
        "--layers", type=int, default=30, help="layers of the model; SmolLM2-135M has 30"
    )
    parser.add_argument("--steps", type=int, default=2, help="training steps that are counted")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    found = {grain: measured(grain, args) for grain in ("steps", "tokens")}
    if args.json:
        print(json.dumps({grain: {"percent": share(p), **p} for grain, p in found.items()}))
        return
    for grain, parts in found.items():
        print(table(grain, parts))
    met = all(share(parts) < BAR for parts in found.values())
    print(f"bar: below {BAR:g} % of a step: {'met' if met else 'NOT MET'}")


if __name__ == "__main__":
    main()
