"""Samples completions without changing the global random state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from stepcredit.keys import keyed_generator
from stepcredit.lab.arithmetic import MAX_NEW_TOKENS
from stepcredit.lab.decoder import HIDDEN, Decoder
from stepcredit.lab.environment import Environment
from stepcredit.lab.tokenizer import completion_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

ROWS_AT_ONCE = 512
"""Completions decoded together: enough for large operations, few enough for the cache to fit."""
DRAWN = -1
"""In place of the id of a token that a tool writes: the policy draws it."""


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    samples_per_prompt: int = 1,
    seed: int = 0,
    purpose: str = "sample",
    max_new_tokens: int = MAX_NEW_TOKENS,
    rows_at_once: int = ROWS_AT_ONCE,
    environment: Environment | None = None,
) -> list[list[int]]:
    """Sample completions at temperature 1 from the whole vocabulary.

    Each completion has its own uniform numbers, drawn before the first token, so what is decoded
    beside it changes nothing but the rounding of its probabilities. What the samples of a prompt
    have in common is decoded once.

    Args:
        model: the policy, a Llama; nothing of it changes.
        tokenizer: the task's tokenizer.
        prompts: texts.
        samples_per_prompt: completions per prompt, > 0.
        seed, purpose: key of the random draws. The global generators do not change.
        max_new_tokens: most tokens of a completion, those of tools included.
        rows_at_once: completions decoded together.
        environment: the tools that answer in the middle of completions.

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
    return sample_with_logprobs(
        model,
        tokenizer,
        prompts,
        samples_per_prompt,
        seed,
        purpose,
        max_new_tokens,
        rows_at_once,
        environment,
    )[0]


def sample_with_logprobs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    samples_per_prompt: int,
    seed: int,
    purpose: str,
    max_new_tokens: int,
    rows_at_once: int = ROWS_AT_ONCE,
    environment: Environment | None = None,
) -> tuple[list[list[int]], list[list[float]]]:
    """`sample`, and the log-prob of each token of each completion."""
    prompt_ids = tokenizer(list(prompts)).input_ids
    replies = None if environment is None else Replies(environment, tokenizer)
    end: Any = tokenizer.eos_token_id
    decoder = Decoder.of(model)
    draws = keyed_generator(seed, purpose).random(
        (len(prompt_ids) * samples_per_prompt, max_new_tokens)
    )
    found: list[list[int]] = []
    logprobs: list[list[float]] = []
    for start in range(0, len(draws), rows_at_once):
        uniform = draws[start : start + rows_at_once]
        wanted = [row // samples_per_prompt for row in range(start, start + len(uniform))]
        part = prompt_ids[wanted[0] : wanted[-1] + 1]
        own = [w - wanted[0] for w in wanted]
        decoded = decode(decoder, part, own, uniform, end, replies)
        found += decoded[0]
        logprobs += decoded[1]
    return found, logprobs


@dataclass
class StepSampler:
    """Samples the completions of a training step, in place of the model's `generate`.

    TRL calls it as its `rollout_func`, with the prompts, each as often as the group is large. The
    draws are keyed by the step, so a resumed run draws the same numbers.

    Args:
        seed: the run's seed.
        max_new_tokens: most tokens of a completion.
        environment: the task's tools.
        ids, logprobs: of the latest completions, by completion and token.
    """

    seed: int
    max_new_tokens: int
    environment: Environment | None = None
    ids: list[list[int]] = field(default_factory=list)
    logprobs: list[list[float]] = field(default_factory=list)

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        """The ids of the prompts and of one completion for each, and which of them tools wrote."""
        tokenizer, group = trainer.processing_class, trainer.num_generations
        purpose = f"rollout {trainer.state.global_step}"
        settings = (group, self.seed, purpose, self.max_new_tokens)
        self.ids, self.logprobs = sample_with_logprobs(
            trainer.model, tokenizer, prompts[::group], *settings, environment=self.environment
        )
        prompt_ids = tokenizer(prompts).input_ids
        found = {"prompt_ids": prompt_ids, "completion_ids": self.ids, "logprobs": None}
        if self.environment is None:
            return found
        tokens = map(tokenizer.convert_ids_to_tokens, self.ids)
        masks = [list(map(int, self.environment.policy_tokens(row))) for row in tokens]
        return {**found, "env_mask": masks}

    def logprobs_of(
        self, ids: Int[Tensor, "row token"], mask: Int[Tensor, "row token"]
    ) -> Float[Tensor, "row token"] | None:
        """The log-probs of the latest completions, 0 on padding; None if these are others.

        Args:
            ids: token ids of completions, padded on the right.
            mask: 1 on their tokens, 0 on padding.
        """
        if mask.sum(1).tolist() != [len(row) for row in self.ids]:
            return None
        present = mask.bool()
        if ids[present].tolist() != [i for row in self.ids for i in row]:
            return None
        known = torch.tensor([value for row in self.logprobs for value in row], device=ids.device)
        return torch.zeros(ids.shape, device=ids.device).masked_scatter(present, known)


class Replies:
    """The token ids that tools answer to calls.

    Args:
        environment: the tools.
        tokenizer: the task's.
    """

    def __init__(self, environment: Environment, tokenizer: PreTrainedTokenizerFast) -> None:
        self.environment, self.tokenizer = environment, tokenizer
        self.call_end: Any = tokenizer.convert_tokens_to_ids(environment.call_end)

    def __call__(self, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> list[int]:
        """The reply to the call that a completion ends with."""
        texts = (completion_text(ids, self.tokenizer) for ids in (prompt_ids, completion_ids))
        written: list[int] = self.tokenizer(self.environment.reply(*texts)).input_ids
        return written


@torch.no_grad()
def decode(
    decoder: Decoder,
    prompt_ids: Sequence[Sequence[int]],
    prompt_of: Sequence[int],
    uniform: np.ndarray,
    end: int,
    replies: Replies | None = None,
) -> tuple[list[list[int]], list[list[float]]]:
    """Decode one completion per row of uniform numbers.

    Completions of a prompt are one text for the decoder while they are equal, and leave it once
    they have ended.

    Args:
        decoder: of the policy.
        prompt_ids: token ids of each prompt.
        prompt_of: which prompt each completion continues; every prompt is continued.
        uniform: (completion, most tokens) in [0, 1): token t of a completion is the first whose
            cumulative probability exceeds number t.
        end: id of the end-of-sequence token.
        replies: what tools put into the completions; equal texts get equal replies.

    Returns:
        The token ids of each completion, `end` included, and the log-prob of each token, also of
        those that a tool wrote.
    """
    ids, logprobs = np.full(uniform.shape, end), np.zeros(uniform.shape)
    lengths, forced = np.full(len(uniform), uniform.shape[1]), np.full(uniform.shape, DRAWN)
    cache, hidden, logits = _read_prompts(decoder, prompt_ids, *uniform.shape)
    row, text = np.arange(len(uniform)), np.array(prompt_of)
    for step, at in enumerate(range(hidden.shape[-1] - uniform.shape[1], hidden.shape[-1])):
        token, said = _draw(logits, text, uniform[row, step], forced[row, step])
        ids[row, step], logprobs[row, step] = token, said
        if replies is not None:
            for each in row[(token == replies.call_end) & (forced[row, step] == DRAWN)]:
                written = replies(prompt_ids[prompt_of[each]], ids[each, : step + 1].tolist())
                room = forced[each, step + 1 :][: len(written)]
                room[:] = written[: len(room)]
        going = token != end
        lengths[row[~going]] = step + 1
        row = row[going]
        if len(row) == 0 or at + 1 == hidden.shape[-1]:
            break
        parents, last, text = _distinct(text[going], token[going])
        moved, source = (torch.from_numpy(part) for part in _moves(parents))
        cache[:, :, moved, :, :at] = cache[:, :, source, :, :at]
        hidden[moved] = hidden[source]
        now, seen = cache[:, :, : len(last)], hidden[: len(last), :, : at + 1]
        logits = decoder.logits(torch.from_numpy(last)[:, None].to(logits.device), now, at, seen)
    return _cut(ids, lengths), _cut(logprobs, lengths)


def _read_prompts(
    decoder: Decoder, prompt_ids: Sequence[Sequence[int]], rows: int, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Read each prompt, padded on the left; the cache for `rows` texts, what they hide, logits."""
    longest, device = max(map(len, prompt_ids)), decoder.embedding.device
    pads = torch.tensor([longest - len(ids) for ids in prompt_ids])
    ids = torch.tensor([[0] * (longest - len(ids)) + list(ids) for ids in prompt_ids])
    padding = torch.arange(longest) < pads[:, None]
    later = torch.ones(longest, longest, dtype=torch.bool).triu(1)
    hidden = torch.zeros(rows, 1, longest + limit, device=device)
    hidden[: len(ids), 0, :longest] = HIDDEN * padding.float().to(device)
    cache = decoder.cache(rows, longest + limit)
    sees = HIDDEN * (padding[:, None] | later).float()
    logits = decoder.logits(ids.to(device), cache[:, :, : len(ids)], 0, sees.to(device))
    return cache, hidden, logits


def _draw(
    logits: Tensor, text: np.ndarray, uniform: np.ndarray, forced: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A token per completion, by its text's inverse cumulative distribution, and its log-prob.

    `forced` is the token itself where a tool writes it.
    """
    logprobs = logits.double().log_softmax(-1).cpu().numpy()
    below = np.exp(logprobs).cumsum(-1)
    reached = below[text] <= (uniform * below[text, -1])[:, None]
    drawn = reached.sum(-1).clip(max=logits.shape[-1] - 1)
    token = np.where(forced == DRAWN, drawn, forced)
    return token, logprobs[text, token]


def _distinct(text: np.ndarray, token: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The texts after one more token, each once.

    Args:
        text, token: of each completion.

    Returns:
        By new text: the text that it continues, and its token; and the new text of each completion.
        The new texts are in an order in which `_moves` moves few of them.
    """
    span = int(token.max()) + 1
    keys, new_text = np.unique(text * span + token, return_inverse=True)
    parents, last = keys // span, keys % span
    stays = _stays(parents)
    place = np.where(stays, parents, 0)
    place[~stays] = np.setdiff1d(np.arange(len(keys)), parents[stays])
    order = np.argsort(place)
    return parents[order], last[order], place[new_text]


def _stays(parents: np.ndarray) -> np.ndarray:
    """Whether a new text keeps its parent's place: the first of its children, if there is room."""
    first = np.append(True, parents[1:] != parents[:-1])
    return first & (parents < len(parents))


def _moves(parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places that need another place's keys and values, and that place; no place is both."""
    moved = np.flatnonzero(parents != np.arange(len(parents)))
    return moved, parents[moved]


def _cut(table: np.ndarray, lengths: np.ndarray) -> list[Any]:
    """The rows of a table as lists, each of its length."""
    return [row[:n] for row, n in zip(table.tolist(), lengths.tolist(), strict=True)]
