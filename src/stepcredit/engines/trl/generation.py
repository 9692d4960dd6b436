"""`Generation`: what one process sampled with TRL, and the credit that was computed for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from warnings import warn

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor

import stepcredit as sc
from stepcredit.data.masking import row_tokens_to_trained
from stepcredit.engines.texts import question_of
from stepcredit.signals.responses import Response
from stepcredit.signals.splitting import Splitter

DECODED = ("responses", "responses_before_splitting")
"""What a generation decodes once; its copies take it over."""


@dataclass(frozen=True)
class Generation:
    """One process's part of a generation, from sampling to its advantages.

    Row i is completion i, and the completions of a group are neighbours. TRL's hook for rewards
    fills in the first five fields; `with_output` adds the masks and the prompts' token ids, the
    trainer adds what signals read, and `with_credit` the credit. With several processes `rewards`
    and `rollouts` are those of all processes, so that groups are whole: row i is rollout
    `first + i`.

    Args:
        inputs: the dataset's rows, one per completion.
        prompts, completions: texts, or the messages of conversations.
        completion_ids: token ids of each completion, without padding.
        rewards: (rollout, reward function), NaN where a function gave None.
        prompt_ids: token ids of each prompt as the policy saw it, without padding.
        policy_tokens: (completion, token) bool, True on the tokens that the policy wrote.
        mask: (completion, token) bool, True on the tokens that the loss trains. It differs from
            `policy_tokens` for truncated completions that the loss leaves out.
        has_tools: whether tools wrote some of the tokens.
        first: which of the rollouts row 0 is; 0 in a single process.
        tokenizer: the policy's, a fast one.
        splitter: cuts the completions into steps.
        groups: number of each completion's group.
        outcomes: outcome of each completion, None where it is unknown.
        logprobs: {model: one log-prob per token of each completion}.
        states: the state of each step of each completion; None where the method compares none.
        trajectory: the trajectory that each completion is a part of, None where it is a whole one;
            None: the `rollout_func` gave none.
        rollouts: what the estimator was given.
        advantages: (completion, token), 0 off `mask`.
    """

    inputs: list[dict[str, Any]]
    prompts: list[Any]
    completions: list[Any]
    completion_ids: list[list[int]]
    rewards: Tensor
    prompt_ids: list[list[int]] = field(default_factory=list)
    policy_tokens: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))
    mask: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))
    has_tools: bool = False
    first: int = 0
    tokenizer: Any = None
    splitter: Splitter | None = None
    groups: Sequence[int] = ()
    outcomes: Sequence[float | None] | None = None
    logprobs: Mapping[str, Sequence[list[float]]] = field(default_factory=dict)
    trajectory: list[Any] | None = None
    states: list[list[Any]] | None = None
    rollouts: Any = None
    advantages: Any = None

    def with_output(self, output: Mapping[str, Any], first: int) -> Generation:
        """The same with the masks and prompts of TRL's output.

        Args:
            output: what TRL's `_generate_and_score_completions` returned.
            first: which of all processes' rollouts row 0 is.
        """
        prompts = zip(output["prompt_ids"], output["prompt_mask"].bool(), strict=True)
        return replace(
            self,
            prompt_ids=[ids[mask].tolist() for ids, mask in prompts],
            policy_tokens=policy_token_mask(output, self.completion_ids),
            mask=trained_mask(output),
            has_tools="tool_mask" in output,
            first=first,
        )

    def with_credit(self, rollouts: sc.Rollouts, advantages: sc.Advantages) -> Generation:
        """The same with this process's rows of the advantages, at TRL's padded positions.

        Args:
            rollouts: those of all processes.
            advantages: their advantages.
        """
        own = advantages.take(self.own_rollouts).padded(self.policy_tokens)
        masked = own.to(self.mask.device).masked_fill(~self.mask, 0.0)
        credited = replace(self, rollouts=rollouts, advantages=masked)
        vars(credited).update({name: vars(self)[name] for name in DECODED if name in vars(self)})
        return credited

    def with_logprobs(self, model: str, rows: Sequence[list[float]]) -> Generation:
        """The same with one more model's log-probs, which the responses then have as a fact.

        Args:
            model: its name in `logprobs`.
            rows: one log-prob per token of each completion.
        """
        new, name = replace(self, logprobs={**self.logprobs, model: rows}), f"{model}_logprobs"
        for kept in DECODED:
            if kept in vars(self):
                pairs = zip(vars(self)[kept], rows, strict=True)
                known = [replace(each, facts={**each.facts, name: row}) for each, row in pairs]
                vars(new)[kept] = known
        return new

    @property
    def own_rollouts(self) -> Tensor:
        """The numbers of this process's completions among the rollouts of all processes."""
        return torch.arange(self.first, self.first + len(self.completion_ids))

    @property
    def lengths(self) -> list[int]:
        """Tokens of each completion, those of tools included."""
        return [len(ids) for ids in self.completion_ids]

    @property
    def policy_ids(self) -> list[list[int]]:
        """The token ids that the policy wrote, for each completion."""
        rows = zip(self.completion_ids, self.policy_tokens.tolist(), strict=True)
        return [row_tokens_to_trained(list(ids), flags) for ids, flags in rows]

    @property
    def sampled(self) -> Generation:
        """The generation itself, which release 0.1 kept in two records."""
        warn("read the field of the generation itself", DeprecationWarning, stacklevel=2)
        return self

    def arguments(self) -> dict[str, Any]:
        """The keywords that a callable signal or gate is called with."""
        return {
            "prompts": self.prompts,
            "completions": self.completions,
            "completion_ids": self.completion_ids,
            "inputs": self.inputs,
        }

    @cached_property
    def responses(self) -> list[Response]:
        """The completions, split into steps.

        The facts of each are its dataset row plus `group`, `outcome` and log-probs.

        Raises:
            RolloutError: a completion that cannot be decoded or split; it names the row.
        """
        assert self.splitter is not None
        return self.splitter(self.responses_before_splitting)

    @cached_property
    def responses_before_splitting(self) -> list[Response]:
        """The completions as responses without steps.

        Raises:
            RolloutError: a completion that cannot be decoded; it names the row.
        """
        return [self._response(row) for row in range(len(self.completion_ids))]

    @cached_property
    def responses_of_all_processes(self) -> tuple[list[Response], Tensor]:
        """The responses of all processes, and the numbers of this one's; called on each process."""
        parts = gather_object([self.responses])
        before = sum(map(len, parts[: PartialState().process_index]))
        own = torch.arange(before, before + len(self.responses))
        return [response for part in parts for response in part], own

    def _response(self, row: int) -> Response:
        known: dict[str, Any] = {} if self.outcomes is None else {"outcome": self.outcomes[row]}
        known |= {f"{name}_logprobs": rows[row] for name, rows in self.logprobs.items()}
        ids = self.completion_ids[row]
        own = tuple(self.policy_tokens[row, : len(ids)].tolist()) if self.has_tools else None
        return Response.of_ids(
            question_of(self.prompts[row]),
            ids,
            self.tokenizer,
            name=f"completion {row}",
            prompt_ids=tuple(self.prompt_ids[row]),
            facts={**self.inputs[row], "group": self.groups[row], **known},
            own=own,
        )


def trained_mask(output: Mapping[str, Tensor]) -> Tensor:
    """True where TRL's loss trains: completion_mask x tool_mask.

    Args:
        output: of TRL's `_generate_and_score_completions`.

    Returns:
        (completion, token) bool, on the output's device.
    """
    mask = output["completion_mask"].bool()
    return mask & output["tool_mask"].bool() if "tool_mask" in output else mask


def policy_token_mask(output: Mapping[str, Tensor], completion_ids: list[list[int]]) -> Tensor:
    """True on the tokens that the policy wrote, those of masked truncated completions included.

    `mask_truncated_completions` zeroes `completion_mask`, but such a response stays a member of its
    group, so lengths come from the sampled ids.

    Args:
        output: of TRL's `_generate_and_score_completions`.
        completion_ids: the sampled ids of each completion.

    Returns:
        (completion, token) bool, on the CPU.
    """
    width = output["completion_ids"].shape[1]
    lengths = torch.tensor([len(ids) for ids in completion_ids])
    written = torch.arange(width) < lengths[:, None]
    return written & output["tool_mask"].bool().cpu() if "tool_mask" in output else written
