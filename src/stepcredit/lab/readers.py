"""Log-probs of sampled completions under the policy, a teacher and the warm start."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

import stepcredit as sc
from stepcredit.signals.models.batching import padded_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Readers:
    """The models that score the policy's completions, for methods and signals that read log-probs.

    Args:
        models: the models by name. `student`: the model that is trained. `teacher`: a stronger
            model; as `prm` it is the implicit process reward model. `base`: the warm start; as
            `ref` it is the reference of the implicit process reward model.
        tokenizer: the task's tokenizer.
    """

    models: Mapping[str, Any]
    tokenizer: PreTrainedTokenizerFast

    @classmethod
    def of(
        cls,
        names: Collection[str],
        policy: Any,
        teacher: Any,
        base: Any,
        tokenizer: PreTrainedTokenizerFast,
    ) -> Readers:
        """The models of the given names."""
        models = {"student": policy, "teacher": teacher, "base": base, "prm": teacher, "ref": base}
        return cls({name: model for name, model in models.items() if name in names}, tokenizer)

    def __call__(
        self, prompts: Sequence[str], completion_ids: Sequence[Sequence[int]], **_: Any
    ) -> dict[str, sc.Tokens]:
        """One log-prob per token of each completion, for each model."""
        return {
            name: token_logprobs(model, self.tokenizer, prompts, completion_ids)
            for name, model in self.models.items()
        }


def token_logprobs(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    completion_ids: Sequence[Sequence[int]],
) -> sc.Tokens:
    """log p(token | prompt, tokens before it) at temperature 1, without gradients.

    Args:
        model: a causal decoder.
        tokenizer: the task's tokenizer.
        prompts: texts.
        completion_ids: the token ids of one completion per prompt.

    Returns:
        One log-prob per completion token, on the CPU.

    Example:
        >>> from stepcredit.lab.model import build_model
        >>> from stepcredit.lab.tokenizer import build_tokenizer
        >>> tokenizer = build_tokenizer()
        >>> read = token_logprobs(build_model(tokenizer), tokenizer, ["1+2*3="], [[4, 5]])
        >>> read.counts.tolist(), bool((read.values < 0).all())
        ([2], True)
    """
    prompt_ids = [tokenizer(prompt).input_ids for prompt in prompts]
    rows = [[*a, *ids] for a, ids in zip(prompt_ids, completion_ids, strict=True)]
    inputs = padded_ids(rows, model.device)
    ids, present = inputs["input_ids"], inputs["attention_mask"].bool()
    prompt_ends = ids.new_tensor([len(prompt) for prompt in prompt_ids])[:, None]
    written = present & (torch.arange(ids.shape[1], device=ids.device) >= prompt_ends)
    with torch.no_grad():
        logits = model(**inputs).logits
    said = torch.log_softmax(logits[:, :-1].double(), -1).gather(-1, ids[:, 1:, None])[..., 0]
    return sc.Tokens(said[written[:, 1:]].cpu(), counts=written.sum(1).cpu())
