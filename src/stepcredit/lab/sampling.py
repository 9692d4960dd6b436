"""Samples completions without changing the global random state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from stepcredit.keys import keyed_generator
from stepcredit.lab.arithmetic import MAX_NEW_TOKENS
from stepcredit.lab.decoder import HIDDEN, Decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

ROWS_AT_ONCE = 128
"""Completions decoded together: enough for large operations, few enough for the cache to fit."""
KEEP = 0.75
"""Finished rows leave the batch once the share of unfinished ones is below this."""


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    samples_per_prompt: int = 1,
    seed: int = 0,
    purpose: str = "sample",
    max_new_tokens: int = MAX_NEW_TOKENS,
    rows_at_once: int = ROWS_AT_ONCE,
) -> list[list[int]]:
    """Sample completions at temperature 1 from the whole vocabulary.

    Each completion has its own uniform numbers, drawn before the first token, so what is decoded
    beside it changes nothing but the rounding of its probabilities. A prompt is read once for all
    its samples.

    Args:
        model: the policy, a Llama; nothing of it changes.
        tokenizer: the task's tokenizer.
        prompts: texts.
        samples_per_prompt: completions per prompt, > 0.
        seed, purpose: key of the random draws. The global generators do not change.
        max_new_tokens: most tokens of a completion.
        rows_at_once: completions decoded together.

    Returns:
        Token ids of each completion, prompt by prompt, with the end-of-sequence token and without
        padding.

    Raises:
        StepCreditError: the model is no Llama that `Decoder` reads.

    Example:
        >>> from stepcredit.lab.arithmetic import build_tokenizer
        >>> from stepcredit.lab.model import build_model
        >>> tokenizer = build_tokenizer()
        >>> len(sample(build_model(tokenizer), tokenizer, ["3+4*2="], samples_per_prompt=2))
        2
    """
    prompt_ids = tokenizer(list(prompts)).input_ids
    end: Any = tokenizer.eos_token_id
    decoder = Decoder.of(model)
    draws = keyed_generator(seed, purpose).random(
        (len(prompt_ids) * samples_per_prompt, max_new_tokens)
    )
    found: list[list[int]] = []
    for start in range(0, len(draws), rows_at_once):
        uniform = draws[start : start + rows_at_once]
        wanted = [row // samples_per_prompt for row in range(start, start + len(uniform))]
        part = prompt_ids[wanted[0] : wanted[-1] + 1]
        found += decode(decoder, part, [w - wanted[0] for w in wanted], uniform, end)[0]
    return found


def rollouts(seed: int, max_new_tokens: int) -> Any:
    """A function that samples the completions of a training step, for TRL's `rollout_func`.

    TRL calls it with the prompts, each as often as the group is large, in place of the model's
    `generate`. The draws are keyed by the step, so a resumed run draws the same numbers.

    Args:
        seed: the run's seed.
        max_new_tokens: most tokens of a completion.
    """

    def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
        tokenizer, group = trainer.processing_class, trainer.num_generations
        purpose = f"rollout {trainer.state.global_step}"
        ids = sample(
            trainer.model, tokenizer, prompts[::group], group, seed, purpose, max_new_tokens
        )
        prompt_ids = tokenizer(prompts).input_ids
        return {"prompt_ids": prompt_ids, "completion_ids": ids, "logprobs": None}

    return rollout


@torch.no_grad()
def decode(
    decoder: Decoder,
    prompt_ids: Sequence[Sequence[int]],
    prompt_of: Sequence[int],
    uniform: np.ndarray,
    end: int,
) -> tuple[list[list[int]], list[list[float]]]:
    """Decode one completion per row of uniform numbers, all at once.

    Args:
        decoder: of the policy.
        prompt_ids: token ids of each prompt.
        prompt_of: which prompt each completion continues.
        uniform: (completion, most tokens) in [0, 1): token t of a completion is the first whose
            cumulative probability exceeds number t.
        end: id of the end-of-sequence token.

    Returns:
        The token ids of each completion, `end` included, and the log-prob of each token.
    """
    rows, limit = uniform.shape
    device = decoder.embedding.device
    cache, hidden, logits = _read_prompts(decoder, prompt_ids, torch.tensor(prompt_of), limit)
    draws = torch.from_numpy(uniform).to(device)
    ids = torch.full((rows, limit), end, device=device)
    logprobs = torch.zeros(rows, limit, dtype=torch.float64, device=device)
    lengths = torch.full((rows,), limit, device=device)
    row, going = torch.arange(rows, device=device), torch.ones(rows, dtype=torch.bool)
    first = hidden.shape[-1] - limit
    for step in range(limit):
        token, logprob = _draw(logits, draws[row, step])
        ids[row[going], step] = token[going]
        logprobs[row[going], step] = logprob[going]
        lengths[row[going & (token == end)]] = step + 1
        going &= token != end
        left = int(going.sum())
        if left == 0 or step + 1 == limit:
            break
        if left < KEEP * len(row):
            cache, hidden, token, row = cache[:, :, going], hidden[going], token[going], row[going]
            going = going[going]
        at = first + step
        logits = decoder.logits(token[:, None], cache, at, hidden[:, :, : at + 1])
    ends = lengths.tolist()
    return (
        [found[:n] for found, n in zip(ids.tolist(), ends, strict=True)],
        [found[:n] for found, n in zip(logprobs.tolist(), ends, strict=True)],
    )


def _read_prompts(
    decoder: Decoder, prompt_ids: Sequence[Sequence[int]], prompt_of: Tensor, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Read each prompt once; the completions' cache, what is hidden from them, and their logits."""
    longest = max(map(len, prompt_ids))
    pads = torch.tensor([longest - len(ids) for ids in prompt_ids])
    ids = torch.tensor([[0] * (longest - len(ids)) + list(ids) for ids in prompt_ids])
    padding = torch.arange(longest) < pads[:, None]
    later = torch.ones(longest, longest, dtype=torch.bool).triu(1)
    hidden = HIDDEN * (padding[:, None] | later).float()
    device = decoder.embedding.device
    read = decoder.cache(len(ids), longest)
    logits = decoder.logits(ids.to(device), read, 0, hidden.to(device))
    cache = decoder.cache(len(prompt_of), longest + limit)
    cache[:, :, :, :, :longest] = read[:, :, prompt_of]
    seen = torch.zeros(len(prompt_of), 1, longest + limit)
    seen[:, 0, :longest] = HIDDEN * padding.float()[prompt_of]
    return cache, seen.to(device), logits[prompt_of]


def _draw(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """One token per row by the inverse of the cumulative distribution, and its log-prob."""
    logprobs = logits.double().log_softmax(-1)
    below = logprobs.exp().cumsum(-1)
    token = (below <= (uniform * below[:, -1])[:, None]).sum(-1).clamp(max=logits.shape[-1] - 1)
    return token, logprobs.gather(-1, token[:, None])[:, 0]
