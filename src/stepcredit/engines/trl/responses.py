"""What TRL sampled, and the same as the responses that a `stepcredit.signals.Signal` scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor

from stepcredit.engines.texts import question_of
from stepcredit.signals.responses import Response
from stepcredit.signals.splitting import Splitter


@dataclass(frozen=True)
class SampledBatch:
    """What one generation gave: row i is completion i, the groups are neighbours.

    Args:
        inputs: the dataset's rows, one a completion.
        prompts, completions: texts, or messages of a conversation.
        completion_ids: token ids of each completion, without padding.
        rewards: (rollout, reward function), NaN where a function gave None.
        prompt_ids: token ids of each prompt as the policy saw it, without padding.
    """

    inputs: list[dict[str, Any]]
    prompts: list[Any]
    completions: list[Any]
    completion_ids: list[list[int]]
    rewards: Tensor
    prompt_ids: list[list[int]]

    def as_arguments(self) -> dict[str, Any]:
        """The keywords that a callable signal or gate is called with."""
        return {
            "prompts": self.prompts,
            "completions": self.completions,
            "completion_ids": self.completion_ids,
            "inputs": self.inputs,
        }


@dataclass(frozen=True)
class Asked:
    """A batch as signals are asked about it; responses are made once, when one needs them.

    Args:
        sampled: the batch.
        tokenizer: the policy's, a fast one.
        splitter: cuts the completions into steps.
        groups: of each completion.
        outcomes: of each completion; None where it is unknown.
        own: (completion, token) bool, which tokens the model wrote; None: all of them.
        logprobs: by model, a log-prob for each token of each completion.
    """

    sampled: SampledBatch
    tokenizer: Any
    splitter: Splitter
    groups: Sequence[int]
    outcomes: Sequence[float | None] | None
    own: Tensor | None = None
    logprobs: Mapping[str, Sequence[list[float]]] = field(default_factory=dict)

    @cached_property
    def responses(self) -> list[Response]:
        """The completions, split; facts are the dataset's row, and of ours `group`, `outcome` and
        the log-probs.

        Raises:
            RolloutError: a completion that cannot be decoded or split, by its row.
        """
        return self.splitter(self.unsplit)

    @cached_property
    def unsplit(self) -> list[Response]:
        """The same before they are split.

        Raises:
            RolloutError: a completion that cannot be decoded, by its row.
        """
        return [self._response(row) for row in range(len(self.groups))]

    @cached_property
    def everyones(self) -> tuple[list[Response], Tensor]:
        """The responses of all processes, and which of them are this one's; called on each."""
        parts = gather_object([self.responses])
        before = sum(map(len, parts[: PartialState().process_index]))
        own = torch.arange(before, before + len(self.responses))
        return [response for part in parts for response in part], own

    def _response(self, row: int) -> Response:
        sampled = self.sampled
        known: dict[str, Any] = {} if self.outcomes is None else {"outcome": self.outcomes[row]}
        known |= {f"{name}_logprobs": rows[row] for name, rows in self.logprobs.items()}
        ids = sampled.completion_ids[row]
        return Response.of_ids(
            question_of(sampled.prompts[row]),
            ids,
            self.tokenizer,
            name=f"completion {row}",
            prompt_ids=tuple(sampled.prompt_ids[row]),
            facts={**sampled.inputs[row], "group": self.groups[row], **known},
            own=None if self.own is None else tuple(self.own[row, : len(ids)].tolist()),
        )


def prompt_ids_of(output: Mapping[str, Tensor]) -> list[list[int]]:
    """The prompts' token ids, without the padding on their left."""
    pairs = zip(output["prompt_ids"], output["prompt_mask"].bool(), strict=True)
    return [ids[mask].tolist() for ids, mask in pairs]
