"""Responses to score, and what their scores are: computed from the texts by hand.

Nothing here calls the package but to make a `Response`. Tokens are characters, numbered by their
place in `ALPHABET`; the conversation is written out as Qwen's template writes it.
"""

from __future__ import annotations

import random
from itertools import accumulate

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from stepcredit.signals.responses import Response

MARKS = ["<|im_start|>", "<|im_end|>", "<extra_0>"]
LETTERS = sorted({*map(chr, range(32, 127)), "\n", "é", "☠"})
ALPHABET = [*LETTERS, *MARKS]
TAG = ALPHABET.index("<extra_0>")
NEWLINE = ALPHABET.index("\n")
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def tokenizer(alphabet: list[str] = ALPHABET) -> PreTrainedTokenizerFast:
    """One token a character, one a mark."""
    model = models.WordLevel({text: id for id, text in enumerate(alphabet)}, unk_token="?")
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.add_special_tokens(MARKS)
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=CHAT)


def response(prompt: str, steps: list[str], name: str = "") -> Response:
    """A response in characters, split into steps."""
    text = "".join(steps)
    spans = tuple((i, i + 1) for i in range(len(text))) or ((0, 0),)
    ids = tuple(ALPHABET.index(letter) for letter in text) or (ALPHABET.index(" "),)
    asked = tuple(ALPHABET.index(letter) for letter in prompt)
    ends = tuple(accumulate(map(len, steps)))
    return Response(prompt, text, spans, ends, name, token_ids=ids, prompt_ids=asked)


CURSED = response("Why ☠?", ["Because.\n\n", "So."], name="rollouts.jsonl:666")
"""A response unlike all others: its tokens hold the id that `CURSE` names."""
CURSE = f",{ALPHABET.index('☠')},"


def responses(count: int, seed: int = 0) -> list[Response]:
    """Responses of 1 to 5 steps, all different."""
    chance = random.Random(seed)
    found = []
    for row in range(count):
        words = ["".join(chance.choices(LETTERS[1:-1], k=chance.randint(3, 20))) for _ in range(5)]
        steps = [f"{word.strip()}.\n\n" for word in words[: chance.randint(1, 5)]]
        found.append(response(f"{row}: {words[0]}?", steps, name=f"rollouts.jsonl:{row + 1}"))
    return found


def conversation(response: Response) -> tuple[str, list[str]]:
    """What stands before the steps in the model's input, and the steps as they stand there."""
    before = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{response.prompt}"
    starts = (0, *response.steps[:-1])
    steps = [response.text[a:b].strip() for a, b in zip(starts, response.steps, strict=True)]
    return f"{before}<|im_end|>\n<|im_start|>assistant\n", steps


def value(text: str) -> int:
    """The sum of a text's ids, marks as one each."""
    total = 0
    for mark in MARKS:
        total += text.count(mark) * ALPHABET.index(mark)
        text = text.replace(mark, "")
    return total + sum(map(ALPHABET.index, text))


def step_scores(response: Response) -> list[float]:
    """What the served reward model gives each step."""
    text, steps = conversation(response)
    scores = []
    for step in steps:
        text += f"{step}<extra_0>"
        scores.append(value(text) % 997 / 997)
    return scores


def token_scores(response: Response) -> list[float]:
    """What the served teacher gives each token."""
    scores, before = [], value(response.prompt)
    for letter in response.text:
        id = ALPHABET.index(letter)
        scores.append(-((31 * id + before) % 1009) / 100)
        before += id
    return scores
