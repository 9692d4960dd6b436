"""What scoring costs: signals that run a model beside the bare model on the same real tokens.

    python benchmarks/scoring.py            tables
    python benchmarks/scoring.py --check    the same; exit status 1 where a bar is missed
    python benchmarks/scoring.py --json     one JSON object, the ratios first
    python benchmarks/scoring.py --quick    a small body

Responses come in groups of 8 that share a prompt of 100 to 300 tokens. Their lengths are drawn from
a log-normal distribution with a long tail, between 512 and 4,096 tokens. The body has the shape of
SmolLM2-135M and random weights. It carries the heads of three reward models, and its own output
layer for log-probs.

The bare forward reads each response alone, so it has no padding and no mask: at these lengths and
on one thread, batches of equal length took as long per token, to within a tenth. Its tokens are
exactly those that the signal's model reads. For reward models it is the body alone; for log-probs
it includes the output layer at the response's tokens. The signal takes all responses at once and
chooses its own batches. Signal and bare forward take turns, response by response, so that a machine
that slows down slows both. What the signal costs beyond the bare forward is padding, tokenization,
the head and the hand-over of scores.

Two more measurements: inputs of equal length cut into 1 to 64 steps, and what it would save to
compute the keys and values of a group's prompt once.

Figures are CPU seconds of one thread, the smallest of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from random import Random
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
SMALL = {
    **SMOLLM2,
    "hidden_size": 144,
    "num_hidden_layers": 4,
    "intermediate_size": 384,
    "vocab_size": 2048,
}
"""The output layer has about the same share of the weights as in SmolLM2-135M."""
GROUP = 8
PROMPT_TOKENS = (100, 300)
SHORTEST, LONGEST, MEDIAN, SIGMA = 512, 4096, 1000, 0.6
"""Of the responses' lengths in tokens; the standard deviation is of their logarithm."""
TOKENS_PER_STEP = 50
CUTS, CUT_TOKENS = (1, 4, 16, 64), 512
SPEED, STEPS_COST = "speed of {} / the bare forward", "cost of 64 steps / of 1"
LEAST_SPEED, MOST_STEPS_COST = 0.85, 1.1
CHAT = (
    "{% for turn in messages %}{{ '<|im_start|>' + turn['role'] + '\n' + turn['content'] + "
    "'<|im_end|>\n' }}{% endfor %}"
)
WORDS = ["so", "the", "sum", "of", "eggs", "is", "+", "=", "then", "we", "sell", "day"]


@dataclass(frozen=True)
class Load:
    """How much is scored."""

    body: dict[str, int]
    groups: int
    rounds: int


FULL = Load(SMOLLM2, groups=2, rounds=2)
QUICK = Load(SMALL, groups=2, rounds=2)


@dataclass(frozen=True)
class Contender:
    """A signal, the tokens that its model reads of each response, and the bare forward of them."""

    signal: Any
    ids: list[list[int]]
    bare: Callable[[int], Any]
    watched: Any
    """The module whose forwards are counted."""


@dataclass(frozen=True)
class Raced:
    """One signal beside the bare forward; seconds are the smallest of the rounds."""

    signal_seconds: float
    bare_seconds: float
    speeds: list[float]
    """Bare seconds / signal seconds of each round."""
    real_tokens: int
    padded_tokens: int
    forwards: int

    @property
    def speed(self) -> float:
        """Tokens per second of the signal / of the bare forward."""
        return self.bare_seconds / self.signal_seconds


def build_tokenizer() -> Any:
    """A byte-level tokenizer with the special tokens of the reward models."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|im_start|>", "<|im_end|>", "<extra_0>", "ки"],
        show_progress=False,
    )
    backend.train_from_iterator([text_of(400, 1, seed) for seed in range(20)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=CHAT)


def text_of(words: int, steps: int, seed: int) -> str:
    """So many words in so many steps of equal length; a word is about one token."""
    written = Random(seed).choices(WORDS, k=words)
    cuts = [round(words * step / steps) for step in range(steps + 1)]
    parts = [" ".join(written[a:b]) for a, b in pairwise(cuts)]
    return ".\n\n".join(parts)


def drawn_length(random: Random) -> int:
    """A response's length in tokens."""
    from math import log

    return round(min(LONGEST, max(SHORTEST, random.lognormvariate(log(MEDIAN), SIGMA))))


def drawn_responses(groups: int, tokenizer: Any) -> list[Any]:
    """Responses split into steps; those of a group share the prompt."""
    random, found = Random(0), []
    for group in range(groups):
        prompt = text_of(random.randint(*PROMPT_TOKENS), 1, seed=-1 - group)
        for row in range(group * GROUP, (group + 1) * GROUP):
            length = drawn_length(random)
            steps = length // TOKENS_PER_STEP
            text = text_of(length - 2 * steps, steps, seed=row)
            found.append(split_response(prompt, text, tokenizer, str(row)))
    return found


def split_response(prompt: str, text: str, tokenizer: Any, name: str) -> Any:
    """A response with its token ids, split at blank lines."""
    from stepcredit.signals.responses import Response
    from stepcredit.signals.splitting import splitter

    response = Response.of_text(prompt, text, tokenizer, name=name)
    ids = tuple(tokenizer.encode(prompt))
    return splitter("blank-line").split(replace(response, prompt_ids=ids))


def build_contenders(load: Load, responses: Sequence[Any], tokenizer: Any) -> dict[str, Contender]:
    """Each signal by name; all share one body."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForTokenClassification

    from stepcredit.prm import HeadedModel, LocalPRM, TwoLayerHead
    from stepcredit.signals.models.teacher_forcing import LocalLogProbs

    torch.manual_seed(0)
    causal = LlamaForCausalLM(LlamaConfig(**load.body)).eval()
    classifier = LlamaForTokenClassification(LlamaConfig(**load.body)).eval()
    classifier.model = causal.model
    two_layer = HeadedModel(causal.model, TwoLayerHead(load.body["hidden_size"])).eval()
    verdicts = {"verdicts": "+="}  # two tokens of this tokenizer
    reward_models = {
        "qwen2.5-math-prm": LocalPRM(two_layer, "qwen2.5-math-prm", tokenizer=tokenizer),
        "math-shepherd": LocalPRM(causal, "math-shepherd", verdicts, tokenizer=tokenizer),
        "token-classifier": LocalPRM(classifier, "token-classifier", tokenizer=tokenizer),
    }
    contenders = {n: of_reward_model(s, causal, responses) for n, s in reward_models.items()}
    contenders["logprobs"] = of_log_probs(LocalLogProbs(causal), causal, responses)
    return contenders


def of_reward_model(signal: Any, causal: Any, responses: Sequence[Any]) -> Contender:
    """A reward model beside its body."""
    import torch

    read = signal.protocol_used.model_input
    ids = [read(signal.tokenizer_used, response).ids for response in responses]

    def bare(row: int) -> Any:
        return causal.model(input_ids=torch.tensor([ids[row]]), use_cache=False)

    return Contender(signal, ids, bare, causal.model)


def of_log_probs(signal: Any, causal: Any, responses: Sequence[Any]) -> Contender:
    """Log-probs beside the language model, which gives the logits of the response's tokens."""
    import torch

    ids = [[*response.prompt_ids, *response.token_ids] for response in responses]

    def bare(row: int) -> Any:
        kept = responses[row].num_tokens + 1
        return causal(input_ids=torch.tensor([ids[row]]), use_cache=False, logits_to_keep=kept)

    return Contender(signal, ids, bare, causal.model)


def seconds(run: Callable[[], Any]) -> float:
    """CPU seconds of one run in this thread."""
    import torch

    began = time.thread_time()
    with torch.inference_mode():
        run()
    return time.thread_time() - began


@contextmanager
def recorded_sizes(body: Any) -> Iterator[list[int]]:
    """The number of tokens, padding included, of every forward that a body runs."""
    seen: list[int] = []

    def note(_: Any, __: Any, output: Any) -> None:
        seen.append(output.last_hidden_state[..., 0].numel())

    handle = body.register_forward_hook(note)
    yield seen
    handle.remove()


def one_round(contender: Contender, responses: Sequence[Any]) -> tuple[float, float]:
    """Seconds of the signal and of the bare forward, which follows each response's scores."""
    stream = contender.signal.checked(responses)
    signal = bare = 0.0
    while True:
        began = time.thread_time()
        found = next(stream, None)
        signal += time.thread_time() - began
        if found is None:
            return signal, bare
        bare += seconds(lambda row=found[0]: contender.bare(row))


def raced(contender: Contender, responses: Sequence[Any], rounds: int) -> Raced:
    """The signal and the bare forward in turns."""
    with recorded_sizes(contender.watched) as sizes:
        contender.signal.scores(responses[:2])
        sizes.clear()
        times = [one_round(contender, responses) for _ in range(rounds)]
    real, forwards = sum(map(len, contender.ids)), len(sizes) // rounds - len(responses)
    return Raced(
        signal_seconds=min(signal for signal, _ in times),
        bare_seconds=min(bare for _, bare in times),
        speeds=[bare / signal for signal, bare in times],
        real_tokens=real,
        padded_tokens=sum(sizes) // rounds - real,
        forwards=forwards,
    )


def by_steps(contender: Contender, tokenizer: Any, rounds: int) -> dict[int, float]:
    """Seconds of 8 responses of equal length, cut into more and more steps."""
    inputs = {steps: equal_responses(contender, steps, tokenizer) for steps in CUTS}
    times: dict[int, list[float]] = {steps: [] for steps in CUTS}
    for _ in range(rounds):
        for steps, responses in inputs.items():
            times[steps].append(seconds(lambda given=responses: contender.signal.scores(given)))
    return {steps: min(of) for steps, of in times.items()}


def equal_responses(contender: Contender, steps: int, tokenizer: Any) -> list[Any]:
    """Responses in so many steps whose inputs, with prompt and tags, are `CUT_TOKENS` long."""
    return [equal_response(contender, steps, tokenizer, seed) for seed in range(GROUP)]


def equal_response(contender: Contender, steps: int, tokenizer: Any, seed: int) -> Any:
    """The longest response of the seed that is no longer than that."""
    read, words = contender.signal.protocol_used.model_input, CUT_TOKENS
    while True:
        text = text_of(words, steps, seed)
        response = split_response("How many eggs?", text, tokenizer, str(seed))
        over = len(read(tokenizer, response).ids) - CUT_TOKENS
        if over <= 0:
            return response
        words -= max(1, over // 2)


@dataclass(frozen=True)
class PromptReuse:
    """What it saves to compute the keys and values of each group's prompt once."""

    prompt_share: float
    """Tokens of prompts / all tokens."""
    tokens_saved: float
    """Tokens not computed again / all tokens."""
    time_saved: float
    """Of the body's time; negative where it takes longer."""


def prompt_reuse(contender: Contender, responses: Sequence[Any], rounds: int) -> PromptReuse:
    """The body over each response alone, and over its tokens after its group's prompt."""
    total = sum(map(len, contender.ids))
    prompts = [len(response.prompt_ids) for response in responses]
    alone, reused = [], []
    for _ in range(rounds):
        alone.append(0.0)
        reused.append(0.0)
        for first in range(0, len(responses), GROUP):
            rows = range(first, first + GROUP)
            alone[-1] += seconds(lambda of=rows: each_alone(contender, of))
            reused[-1] += seconds(lambda of=rows: after_one_prompt(contender, responses, of))
    return PromptReuse(
        prompt_share=sum(prompts) / total,
        tokens_saved=(sum(prompts) - sum(prompts[::GROUP])) / total,
        time_saved=1 - min(reused) / min(alone),
    )


def each_alone(contender: Contender, rows: range) -> None:
    """The prompt and the response of each of the group, one after the other."""
    import torch

    for row in rows:
        contender.watched(torch.tensor([contender.ids[row]]), use_cache=False)


def after_one_prompt(contender: Contender, responses: Sequence[Any], rows: range) -> None:
    """The prompt once, then the tokens of each of the group's responses after it."""
    import torch
    from transformers import DynamicCache

    prompt, cache = len(responses[rows[0]].prompt_ids), DynamicCache()
    contender.watched(torch.tensor([contender.ids[rows[0]][:prompt]]), past_key_values=cache)
    for row in rows:
        own = contender.ids[row][prompt:]
        contender.watched(torch.tensor([own]), past_key_values=cache)
        cache.crop(-len(own))


def bars_of(names: Sequence[str]) -> dict[str, float]:
    """The bar of each ratio."""
    return {**{SPEED.format(name): LEAST_SPEED for name in names}, STEPS_COST: MOST_STEPS_COST}


def is_met(name: str, value: float, bar: float) -> bool:
    """Whether a ratio is on the right side of its bar."""
    return value <= bar if name == STEPS_COST else value >= bar


def print_tables(
    races: dict[str, Raced], steps: dict[int, float], reuse: PromptReuse, load: Load
) -> None:
    """What was run, and what it cost."""
    from rich.console import Console
    from rich.table import Table

    title = f"CPU seconds, the smallest of {load.rounds} rounds"
    speed = Table(title=title, title_justify="left", box=None)
    for heading in ("", "tokens", "padded", "forwards", "signal", "bare", "speed", "rounds"):
        speed.add_column(heading, justify="right" if heading else "left")
    for name, race in races.items():
        tokens = f"{race.real_tokens:,}", f"{race.padded_tokens:,}", f"{race.forwards}"
        times = f"{race.signal_seconds:.2f}", f"{race.bare_seconds:.2f}", f"{race.speed:.3f}"
        speed.add_row(name, *tokens, *times, f"{min(race.speeds):.3f}–{max(race.speeds):.3f}")
    cost = Table(title="CPU milliseconds per response, by steps", title_justify="left")
    for cut in steps:
        cost.add_column(str(cut), justify="right")
    cost.add_row(*[f"{of / GROUP * 1e3:.0f}" for of in steps.values()])
    Console().print(speed, cost)
    print(
        f"prompts are {reuse.prompt_share:.1%} of the tokens; computed once per group, "
        f"{reuse.tokens_saved:.1%} fewer tokens and {1 - reuse.time_saved:.2f} times the seconds"
    )


def print_bars(ratios: dict[str, float], bars: dict[str, float]) -> None:
    """The ratios with their bars."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="ratios", title_justify="left")
    for heading in ("", "measured", "bar", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for name, bar in bars.items():
        sign = "<=" if name == STEPS_COST else ">="
        verdict = "met" if is_met(name, ratios[name], bar) else "MISSED"
        table.add_row(name, f"{ratios[name]:.3f}", f"{sign} {bar:g}", verdict)
    Console().print(table)


def parse_options() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object and nothing else"
    )
    parser.add_argument("--check", action="store_true", help="exit status 1 where a bar is missed")
    parser.add_argument("--quick", action="store_true", help="a small body")
    parser.add_argument("--groups", type=int, help=f"number of groups of {GROUP} responses")
    return parser.parse_args()


def main() -> None:
    """Parse the options, start anew under `SETTINGS`, race, report."""
    options = parse_options()
    if any(os.environ.get(name) != value for name, value in SETTINGS.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **SETTINGS})
    import torch

    torch.set_num_threads(1)
    load = QUICK if options.quick else FULL
    load = replace(load, groups=options.groups or load.groups)
    tokenizer = build_tokenizer()
    responses = drawn_responses(load.groups, tokenizer)
    contenders = build_contenders(load, responses, tokenizer)
    races = {name: raced(of, responses, load.rounds) for name, of in contenders.items()}
    steps = by_steps(contenders["qwen2.5-math-prm"], tokenizer, load.rounds)
    reuse = prompt_reuse(contenders["logprobs"], responses, load.rounds)
    ratios = {SPEED.format(name): round(race.speed, 3) for name, race in races.items()}
    ratios[STEPS_COST] = round(steps[64] / steps[1], 3)
    bars = bars_of(list(races))
    if options.json:
        tables = {name: asdict(race) for name, race in races.items()}
        found = {"ratios": ratios, "bars": bars, "races": tables, "by steps": steps}
        print(json.dumps({**found, "prompt reuse": asdict(reuse)}))
    else:
        print_tables(races, steps, reuse, load)
        print_bars(ratios, bars)
    if options.check and not all(is_met(name, ratios[name], bar) for name, bar in bars.items()):
        sys.exit(1)


if __name__ == "__main__":
    main()
