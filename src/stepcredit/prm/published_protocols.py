"""The protocols of published process reward models: input, read positions, and score.

A protocol holds no state. It turns a prompt and steps into token ids and the positions at which the
model is read, and the head's logits at those positions into scores. Each step includes the
delimiter that ended it; a protocol removes what its model never saw in training.

To add a protocol, write a frozen dataclass here:

1. Decorate it with `@PROTOCOLS.register("its-name")`, the name for the command line and settings.
2. Set `head` (see `stepcredit.prm.heads`) and, if scores do not lie in [0, 1], `range`.
3. Write `encode`, which gives a `ModelInput`, with the helpers of `stepcredit.prm.model_input`.
4. Write `score`, from logits (steps, classes) to scores (steps,).
5. For a head of "words", write `words`: the token ids whose logits are the classes.

Then add it to `stepcredit.prm.__all__`, and to the tables of `tests/prm/cases.py` (settings and a
small model) and `tests/prm/reference.py` (the model card's own computation). An installed package
can add one under the entry point group `stepcredit.prm_protocols`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from stepcredit.errors import RolloutError, SettingError, SignalError
from stepcredit.prm.model_input import (
    ModelInput,
    lines,
    put_tags,
    read_apart,
    read_at_tags,
    render,
    single_token,
    token_ids,
)
from stepcredit.prm.protocol import PROTOCOLS, Head, Protocol
from stepcredit.settings.fields import choice, declare, is_instance, is_name, text

QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


def _words(default: str, about: str) -> Any:
    return declare(default, is_name, about)


@PROTOCOLS.register("qwen2.5-math-prm")
@dataclass(frozen=True)
class QwenMathPRM(Protocol):
    """Qwen2.5-Math-PRM-7B and -72B, Qwen2.5-Math-7B-PRM800K.

        input   chat(system, prompt, step1 <extra_0> step2 <extra_0> ...)
        score   softmax(Linear(ReLU(Linear(h))))[1] at <extra_0>, 0...1

    Args:
        system: the system turn; None for the chat template's default.
        tag: the token after each step.

    Raises:
        SignalError: the tokenizer has no such tag or no chat template, or the template rewrites
            the assistant's turn.

    Example:
        >>> import torch
        >>> QwenMathPRM().score(torch.tensor([[0.0, 0.0], [200.0, 0.0]])).tolist()
        [0.5, 0.0]

    Source: the model card's `make_step_rewards`. Differs: scores are read by index; the
    card reads all nonzero values, so a probability that underflows to 0 shifts every later step.
    """

    head: ClassVar[Head] = "two-layer"
    system: str | None = text(QWEN_SYSTEM, "the system turn; null for the template's own")
    tag: str = _words("<extra_0>", "the token after each step")

    def encode(self, tokenizer: Any, prompt: str, steps: Sequence[str]) -> ModelInput:
        """The conversation, read at its tags."""
        tag = single_token(self.name, tokenizer, self.tag)
        answer, starts = put_tags([step.strip() for step in steps], self.tag)
        turns = [{"role": "system", "content": self.system}] if self.system is not None else []
        turns += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        conversation = render(self.name, tokenizer, turns)
        at = conversation.rfind(answer)
        if at < 0:
            raise SignalError(f"{self.name}: the chat template rewrites the assistant's turn")
        starts = [at + start for start in starts]
        return read_at_tags(self.name, tokenizer, conversation, starts, tag, special=False)

    def score(self, logits: Tensor) -> Tensor:
        """The second class's probability."""
        return logits.softmax(-1)[:, 1]


@PROTOCOLS.register("reasonflux")
@dataclass(frozen=True)
class ReasonFluxPRM(QwenMathPRM):
    """ReasonFlux-PRM-7B: as Qwen's, but without a system turn.

        input   chat(prompt, step1 <extra_0> step2 <extra_0> ...)
        score   softmax(Linear(ReLU(Linear(h))))[1] at <extra_0>, 0...1

    ReasonFlux-PRM-1.5B is another kind of model, with one score per response.

    Args:
        system: the system turn; None for the chat template's default.
        tag: the token after each step.

    Raises:
        SignalError: as for `QwenMathPRM`.

    Example:
        >>> ReasonFluxPRM().system is None
        True

    Source: the model card. Differs: read by index, as in `QwenMathPRM`.
    """

    system: str | None = text(None, "the system turn; null for the template's own")


@PROTOCOLS.register("math-shepherd")
@dataclass(frozen=True)
class MathShepherd(Protocol):
    """math-shepherd-mistral-7b-prm: a language model that says + or - after each step.

        input   prompt step1 ки (newline) step2 ки ...
        score   softmax(logits of + and -)[+] at ки, 0...1

    Args:
        tag: the text after each step, one token.
        verdicts: the good and the bad word with a space between, two tokens.

    Raises:
        SignalError: the tokenizer lacks those tokens.

    Example:
        >>> import torch
        >>> MathShepherd().score(torch.tensor([[3.0, 3.0]])).tolist()
        [0.5]

    Source: the model card. Differs: steps are read where tags were inserted, not at each token with
    the tag's id.
    """

    head: ClassVar[Head] = "words"
    tag: str = _words("ки", "the text after each step")
    verdicts: str = _words("+ -", "the good and the bad word")

    def encode(self, tokenizer: Any, prompt: str, steps: Sequence[str]) -> ModelInput:
        """Question and steps as one text, read at its tags."""
        tag = single_token(self.name, tokenizer, self.tag)
        answer, starts = put_tags([f"{step.strip()} " for step in steps], self.tag, joint="\n")
        starts = [len(prompt) + 1 + start for start in starts]
        whole = f"{prompt} {answer}"
        return read_at_tags(self.name, tokenizer, whole, starts, tag, special=True)

    def words(self, tokenizer: Any) -> list[int]:
        """The two verdicts' tokens."""
        ids = token_ids(tokenizer, self.verdicts)
        if len(ids) != 2 or tokenizer.unk_token_id in ids:
            reason = f"{self.name} needs {self.verdicts!r} to be two tokens, not {len(ids)}"
            raise SignalError(reason)
        return ids

    def score(self, logits: Tensor) -> Tensor:
        """The good word's probability among the two."""
        return logits.softmax(-1)[:, 0]


def _exchanges(questions: list[str], answer: str) -> list[dict[str, str]]:
    """A conversation in which every question gets the same answer."""
    pairs = ((("user", text), ("assistant", answer)) for text in questions)
    return [{"role": role, "content": text} for pair in pairs for role, text in pair]


@PROTOCOLS.register("rlhflow")
@dataclass(frozen=True)
class RLHFlow(Protocol):
    """Llama3.1-8B-PRM-Mistral-Data and -Deepseek-Data: one chat turn per step, answered by +.

        input   chat(prompt step1, +, step2, +, ...)
        score   softmax(logits of + and -)[+] at the token before +, 0...1

    The reference runs the model once per step, on the turns so far. Its template only appends, so
    those turns are a prefix of the whole conversation, and one run of a causal model over the whole
    gives the same scores. A template that rewrites earlier turns is refused.

    Args:
        good: the good verdict, one token.
        bad: the bad verdict, one token.

    Raises:
        SignalError: the tokenizer lacks those tokens or a chat template, or the template rewrites
            earlier turns.

    Example:
        >>> import torch
        >>> RLHFlow().score(torch.tensor([[3.0, 3.0]])).tolist()
        [0.5]

    Source: RLHFlow/RLHF-Reward-Modeling, math-rm/prm_evaluate.py. Differs: one forward per
    response; the position before + is computed; the reference counts three tokens from the
    end.
    """

    head: ClassVar[Head] = "words"
    good: str = _words("+", "the good verdict")
    bad: str = _words("-", "the bad verdict")

    def encode(self, tokenizer: Any, prompt: str, steps: Sequence[str]) -> ModelInput:
        """The whole conversation, read before each +."""
        good = single_token(self.name, tokenizer, self.good)
        texts = [step.strip() for step in steps]
        texts[0] = f"{prompt} {texts[0]}".strip()
        conversation, starts = self._appended(tokenizer, texts)
        if conversation != render(self.name, tokenizer, _exchanges(texts, self.good)):
            reason = "the chat template rewrites earlier turns, so one run can't read them all"
            raise SignalError(f"{self.name}: {reason}")
        found = read_at_tags(self.name, tokenizer, conversation, starts, good, special=False)
        return ModelInput(found.ids, [position - 1 for position in found.positions])

    def _appended(self, tokenizer: Any, texts: list[str]) -> tuple[str, list[int]]:
        """The conversation as a template that only appends writes it, and where each + starts."""
        question, answer = "\ue000", "\ue001"
        one = render(self.name, tokenizer, _exchanges([question], answer))
        two = render(self.name, tokenizer, _exchanges([question, question], answer))
        before, _, rest = one.partition(question)
        between, _, end = rest.partition(answer)
        next_turn, _, _ = two[len(one) :].partition(question)
        turns, starts = put_tags([text + between for text in texts], self.good, end + next_turn)
        return before + turns + end, [len(before) + start for start in starts]

    def words(self, tokenizer: Any) -> list[int]:
        """The two verdicts' tokens."""
        return [single_token(self.name, tokenizer, word) for word in (self.good, self.bad)]

    def score(self, logits: Tensor) -> Tensor:
        """The good verdict's probability among the two."""
        return logits.softmax(-1)[:, 0]


@PROTOCOLS.register("skywork")
@dataclass(frozen=True)
class Skywork(Protocol):
    """Skywork-o1-Open-PRM-Qwen-2.5-1.5B and -7B: a value head; each step is tokenized separately.

        input   bos prompt (newline), then for each step: its tokens and a newline's
        score   sigmoid(Linear(h)) at the step's newline, 0...1

    Raises:
        SignalError: the tokenizer has no bos token, or a newline is not one token.

    Example:
        >>> import torch
        >>> Skywork().score(torch.tensor([[0.0], [-800.0]])).tolist()
        [0.5, 0.0]

    Source: SkyworkAI/skywork-o1-prm-inference, `prepare_input`. Differs: the caller
    splits the steps, where the reference splits at every newline.
    """

    head: ClassVar[Head] = "value"

    def encode(self, tokenizer: Any, prompt: str, steps: Sequence[str]) -> ModelInput:
        """Question and steps, read at the newlines after the steps."""
        if tokenizer.bos_token is None:
            raise SignalError(f"{self.name} needs a bos_token, but the tokenizer has none")
        newline = single_token(self.name, tokenizer, "\n")
        before = token_ids(tokenizer, f"{tokenizer.bos_token}{prompt}\n")
        return read_apart(tokenizer, before, lines(steps), [newline])

    def score(self, logits: Tensor) -> Tensor:
        """The value's sigmoid."""
        return logits.squeeze(-1).sigmoid()


@PROTOCOLS.register("pure")
@dataclass(frozen=True)
class PurePRM(Protocol):
    """PURE-PRM-7B: a token classifier, read at a newline put in place of each step's blank line.

        input   prompt, then for each step: its tokens and a newline's
        score   p(1) - p(0) at the newline, -1...1

    Raises:
        SignalError: a newline is not one token.

    Example:
        >>> import torch
        >>> PurePRM().score(torch.tensor([[0.0, 0.0], [200.0, 0.0]])).tolist()
        [0.0, -1.0]

    Source: the model card. Differs: the weights that approximate the minimum are not applied; the
    estimator `pure` does that.
    """

    head: ClassVar[Head] = "classes"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def encode(self, tokenizer: Any, prompt: str, steps: Sequence[str]) -> ModelInput:
        """Question and steps, read at the newlines after the steps."""
        newline = single_token(self.name, tokenizer, "\n")
        before = token_ids(tokenizer, prompt)
        return read_apart(tokenizer, before, [step.rstrip() for step in lines(steps)], [newline])

    def score(self, logits: Tensor) -> Tensor:
        """The probability of right minus that of wrong."""
        probabilities = logits.softmax(-1)
        return probabilities[:, 1] - probabilities[:, 0]


@PROTOCOLS.register("token-classifier")
@dataclass(frozen=True)
class TokenClassifier(Protocol):
    """Any two-class token classifier, in the form that TRL's PRMTrainer trains.

        input   bos (where there is one), prompt, then for each step: its tokens and the separator's
        score   softmax(logits)[positive] at the separator's or the step's last token, 0...1

    Args:
        separator: the text after each step.
        read: "separator" or "step": a step is read at the last token of its separator, or at its
            own last token.
        positive: the class of right steps.

    Raises:
        SettingError: a field out of range, or `read="separator"` with an empty separator.
        RolloutError: a step without a token, with `read="step"`.

    Example:
        >>> import torch
        >>> TokenClassifier(positive=0).score(torch.tensor([[0.0, 0.0], [200.0, 0.0]])).tolist()
        [0.5, 1.0]

    Source: TRL, `PRMTrainer.tokenize_row`. Differs: space at a step's end is removed first.
    """

    head: ClassVar[Head] = "classes"
    separator: str = declare(
        "\n", is_instance(str, "a string"), "the text after each step; may be empty"
    )
    read: str = choice(
        "separator",
        ("separator", "step"),
        "where a step is read: at its separator's or its own last token",
    )
    positive: int = choice(1, (0, 1), "the class of right steps")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.separator and self.read == "separator":
            raise SettingError(
                "an empty separator has no token to read; use read='step'", field="separator"
            )

    def encode(self, tokenizer: Any, prompt: str, steps: Sequence[str]) -> ModelInput:
        """Question and steps, each tokenized separately."""
        separator = token_ids(tokenizer, self.separator)
        bos = tokenizer.bos_token_id
        before = [*([] if bos is None else [bos]), *token_ids(tokenizer, prompt)]
        cut = [step.rstrip() for step in lines(steps)]
        found = read_apart(tokenizer, before, cut, separator)
        if self.read == "separator":
            return found
        if not all(cut):
            reason = f"step {cut.index('')} has no token to read; use read='separator'"
            raise RolloutError(reason)
        return ModelInput(found.ids, [at - len(separator) for at in found.positions])

    def score(self, logits: Tensor) -> Tensor:
        """The positive class's probability."""
        return logits.softmax(-1)[:, self.positive]
