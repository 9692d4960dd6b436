"""A batch of verl's queue, row by row in its own order: what credit is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Bool
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stepcredit.engines.texts import question_of
from stepcredit.engines.verl.reward_loop import dataset_facts, told_outcome, with_outcome
from stepcredit.errors import EngineError, RolloutError
from stepcredit.signals.responses import Response
from stepcredit.signals.splitting import Splitter

REQUIRED = ("uid", "response_mask", "rm_scores", "prompts", "responses")
OPTIONAL = ("extra_fields", "raw_prompt", "reward_model", "extra_info", "data_source")
LOGPROBS = {"student": "old_log_probs", "base": "ref_log_prob", "ref": "ref_log_prob"}
"""The field that holds each model's log-probs, one a token of the response."""
TEACHER = "teacher_logprobs"
"""The teacher's, over prompt and response: that of a token stands at the token before it."""
FIELDS = (*REQUIRED, *OPTIONAL, *dict.fromkeys(LOGPROBS.values()), TEACHER)


@dataclass(frozen=True)
class QueuedBatch:
    """Rows of the queue. A member is a row that is credited: no padding, and with a trained token.

    Args:
        keys: `{uid}_{session}_{output}`, by which verl writes a row back.
        padding: rows that verl added to fill a batch.
        columns: one item a row, by the name of the queue's field.
    """

    keys: Sequence[str]
    padding: Sequence[bool]
    columns: Mapping[str, Sequence[Any]]

    @classmethod
    def of(
        cls, data: Mapping[str, Any], keys: Sequence[str], tags: Sequence[Mapping[str, Any]]
    ) -> QueuedBatch:
        """The batch of what the queue gave: nested or padded tensors, stacks, arrays, lists.

        Args:
            data: its answer for `FIELDS`; the optional ones may be missing.
            keys, tags: of the rows, in the answer's order.

        Raises:
            EngineError: a field that is needed and missing; or several outputs of one session.
        """
        present = set(data.keys())
        for name in REQUIRED:
            if name not in present:
                raise EngineError("is not in the queue: credit needs it", field=name)
        columns = {name: rows_of(data[name]) for name in FIELDS if name in present}
        padding = [bool(tag.get("is_padding", False)) for tag in tags]
        batch = cls(list(keys), padding, columns)
        batch._check_sessions()
        return batch

    def _check_sessions(self) -> None:
        """Scores come once a session, and tell of its last output alone."""
        seen: set[str] = set()
        for key, padding in zip(self.keys, self.padding, strict=True):
            session = key.rsplit("_", 1)[0]
            if session in seen and not padding:
                reason = "the agent loop gave several outputs, but scores are of the last alone"
                raise EngineError(reason, field=f"session {session}")
            seen.add(session)

    @cached_property
    def members(self) -> list[int]:
        """The rows that are credited."""
        masks = self.columns["response_mask"]
        rows = enumerate(zip(masks, self.padding, strict=True))
        return [row for row, (mask, padding) in rows if not padding and bool(mask.any())]

    @cached_property
    def sizes(self) -> list[int]:
        """All tokens of each member's response, a tool's included."""
        return [len(mask) for mask in self.of_members("response_mask")]

    @cached_property
    def trained(self) -> Bool[Tensor, "member token"]:
        """True on the tokens that the policy wrote, as they were generated."""
        masks = [mask.bool() for mask in self.of_members("response_mask")]
        return pad_sequence(masks, batch_first=True)

    @cached_property
    def outcomes(self) -> list[float | None]:
        """Each member's `outcome` among its extras, None where it is unknown; of one without it the
        total of its row of rewards: a tool's tokens may carry some too.

        Raises:
            RolloutError: an `outcome` that is no number.
        """
        found = []
        for member, row in enumerate(self.of_members("rm_scores")):
            try:
                found.append(told_outcome(self.extras[member], float(row.double().sum())))
            except RolloutError as error:
                raise RolloutError(error.reason, row=member, field=error.field) from None
        return found

    @cached_property
    def extras(self) -> list[Mapping[str, Any]]:
        """What the reward loop told of each member besides its reward."""
        if "extra_fields" not in self.columns:
            return [{} for _ in self.members]
        fields = [given or {} for given in self.of_members("extra_fields")]
        return [given.get("reward_extra_info") or {} for given in fields]

    def of_members(self, name: str) -> list[Any]:
        """A field of the members."""
        column = self.columns[name]
        return [column[row] for row in self.members]

    def name_of(self, member: int) -> str:
        """What errors call a member."""
        return f"response {self.keys[self.members[member]]}"

    def logprobs(self, model: str) -> list[Tensor]:
        """A model's log-probs of all tokens of each member's response.

        Args:
            model: "student", "teacher", "base" or "ref".

        Raises:
            EngineError: the queue has none, or the teacher's are several a token.
        """
        name = TEACHER if model == "teacher" else LOGPROBS.get(model, model)
        if name not in self.columns:
            raise EngineError("are not in the queue", field=f"{model}_logprobs")
        rows = self.of_members(name)
        if model != "teacher":
            return rows
        prompts, sizes = self.of_members("prompts"), self.sizes
        return [
            _of_response(row, len(prompt), size)
            for row, prompt, size in zip(rows, prompts, sizes, strict=True)
        ]

    def responses(
        self, tokenizer: Any, splitter: Splitter, models: Sequence[str] = ()
    ) -> list[Response]:
        """The members' responses, split; facts are the dataset's, the group, log-probs and the
        outcome where it is known.

        Args:
            tokenizer: the policy's, a fast one.
            splitter: cuts them into steps.
            models: whose log-probs are among the facts.

        Raises:
            RolloutError: a response that cannot be decoded or split, by its key.
        """
        known = {f"{model}_logprobs": self.logprobs(model) for model in models}
        found = []
        for member, row in enumerate(self.members):
            facts = {name: rows[member].tolist() for name, rows in known.items()}
            response = Response.of_ids(
                question_of(self._at("raw_prompt", row), without=""),
                self.columns["responses"][row].tolist(),
                tokenizer,
                name=self.name_of(member),
                prompt_ids=tuple(self.columns["prompts"][row].tolist()),
                facts={**with_outcome(self._facts(row), self.outcomes[member]), **facts},
                own=tuple(self.columns["response_mask"][row].bool().tolist()),
            )
            found.append(splitter.split(response))
        return found

    def _facts(self, row: int) -> dict[str, Any]:
        known = dataset_facts(self._at("reward_model", row), self._at("extra_info", row))
        return {**known, "group": str(self.columns["uid"][row])}

    def _at(self, name: str, row: int) -> Any:
        return self.columns[name][row] if name in self.columns else None


def rows_of(column: Any) -> list[Any]:
    """One item a row, tensors on the CPU.

    Example:
        >>> import torch
        >>> rows_of(torch.nested.nested_tensor([[1], [2, 3]], layout=torch.jagged))
        [tensor([1]), tensor([2, 3])]
    """
    if isinstance(column, Tensor):
        return [row.cpu() for row in column.unbind()]
    return column.tolist() if hasattr(column, "tolist") else list(column)


def _of_response(row: Tensor, prompt: int, size: int) -> Tensor:
    """Response token j stands at prompt - 1 + j, alone or first of one."""
    flat = row.reshape(len(row), -1)
    if flat.shape[1] != 1:
        reason = f"expected the sampled token's, got the {flat.shape[1]} largest a token"
        raise EngineError(reason, field=TEACHER)
    return flat[prompt - 1 : prompt - 1 + size, 0]


def placed(error: RolloutError, batch: QueuedBatch) -> RolloutError:
    """The error under the key of the row it is about."""
    if error.row is None:
        return error
    return RolloutError(error.reason, field=error.field, place=batch.name_of(error.row))
