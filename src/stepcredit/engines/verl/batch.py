"""A batch of verl's queue: its rows, in their order, with all that credit is computed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from stepcredit.engines.texts import question_of
from stepcredit.engines.verl.extras import Extras, agent_extras, reported_outcome
from stepcredit.engines.verl.reward_loop import dataset_facts, with_outcome
from stepcredit.engines.verl.training_mark import TRAINING, is_marked
from stepcredit.errors import EngineError, RolloutError
from stepcredit.signals.responses import Response
from stepcredit.signals.splitting import Splitter

REQUIRED = ("uid", "response_mask", "rm_scores", "prompts", "responses")
OPTIONAL = ("extra_fields", "raw_prompt", "reward_model", "extra_info", "data_source", TRAINING)
LOGPROBS = {"student": "old_log_probs", "base": "ref_log_prob", "ref": "ref_log_prob"}
"""The field that holds each model's log-probs, one per token of the response."""
TEACHER = "teacher_logprobs"
"""The teacher's log-probs, over prompt and response; a token's is stored one position earlier."""
DTYPES = {"response_mask": torch.bool, "rm_scores": torch.float64}
"""Types that columns are changed to at once, which is faster than row by row."""
FIELDS = (*REQUIRED, *OPTIONAL, *dict.fromkeys(LOGPROBS.values()), TEACHER)


@dataclass(frozen=True)
class QueuedBatch:
    """Rows of the queue.

    A member is a row that gets credit: it is no padding row and has a trained token. The outputs
    of one session are the parts of one trajectory.

    Args:
        keys: `{uid}_{session}_{output}`, by which verl writes a row back. `output` counts the
            outputs of a session; verl may give the rows in any order.
        padding: True for rows that verl added to fill a batch.
        columns: one item per row, by the name of the queue's field.
    """

    keys: Sequence[str]
    padding: Sequence[bool]
    columns: Mapping[str, Sequence[Any]]

    @classmethod
    def of(
        cls, data: Mapping[str, Any], keys: Sequence[str], tags: Sequence[Mapping[str, Any]]
    ) -> QueuedBatch:
        """The batch that the queue returned: nested or padded tensors, stacks, arrays, lists.

        Args:
            data: the columns for `FIELDS`; optional ones may be missing.
            keys, tags: of the rows, in the order of the columns.

        Raises:
            EngineError: a required field is missing.
        """
        present = set(data.keys())
        for name in REQUIRED:
            if name not in present:
                raise EngineError("is not in the queue, but credit needs it", field=name)
        columns = {
            name: unbind_rows(data[name], DTYPES.get(name)) for name in FIELDS if name in present
        }
        padding = [bool(tag.get("is_padding", False)) for tag in tags]
        return cls(list(keys), padding, columns)

    @cached_property
    def members(self) -> list[int]:
        """The rows that get credit, in their order; but a session's outputs stand in theirs."""
        masks = self.columns["response_mask"]
        rows = enumerate(zip(masks, self.padding, strict=True))
        found = [row for row, (mask, padding) in rows if not padding and mask.numpy().any()]
        first: dict[str, int] = {}
        for row in found:
            first.setdefault(session_of(self.keys[row])[0], row)

        def place(row: int) -> tuple[int, int]:
            session, output = session_of(self.keys[row])
            return first[session], output

        return sorted(found, key=place)

    @cached_property
    def sessions(self) -> list[str]:
        """The session of each member."""
        return [session_of(self.keys[row])[0] for row in self.members]

    @property
    def has_several_outputs(self) -> bool:
        """Whether any session has several outputs among the members."""
        return len(set(self.sessions)) < len(self.sessions)

    @cached_property
    def masks(self) -> list[Tensor]:
        """Which tokens of each member's response are trained, as bool: those of the policy."""
        return [mask.bool() for mask in self.member_column("response_mask")]

    @cached_property
    def outcomes(self) -> list[float | None]:
        """Each member's outcome: its extra `outcome`, where None means unknown, or else the sum of
        its rewards (tokens of a tool may carry some too).

        Raises:
            RolloutError: an `outcome` that is no number.
        """
        outcomes = []
        for member, row in enumerate(self.member_column("rm_scores")):
            try:
                outcomes.append(reported_outcome(self.extras[member], float(row.sum())))
            except RolloutError as error:
                raise error.at(row=member) from error.__cause__
        return outcomes

    @cached_property
    def extras(self) -> list[Extras]:
        """Each member's extras: what the reward loop reported in addition to the reward."""
        return [row.get("reward_extra_info") or {} for row in self._extra_fields]

    @cached_property
    def agent_extras(self) -> list[Extras]:
        """What the agent loop said of each member's steps, in its own `extra_fields`."""
        return [agent_extras(row) for row in self._extra_fields]

    def check_marks(self, was_scored: Callable[[Extras], bool]) -> None:
        """Refuse rows of training that the reward loop took for rows of validation.

        verl's queue gives the mark only where all rows of the batch have it, so without it the
        extras of each row decide.

        Args:
            was_scored: whether a row's extras are those of a row of training.

        Raises:
            EngineError: names the first such response.
        """
        marks = self.columns.get(TRAINING)
        for member, (row, extras) in enumerate(zip(self.members, self.extras, strict=True)):
            marked = marks is not None and is_marked(marks[row])
            if not marked and not was_scored(extras):
                reason = f"{self.name_of(member)} has lost this mark of training, so its steps were"
                reason += " not scored: an agent loop manager of your own must pass it on, and the"
                reason += " prompts of an old checkpoint are sampled anew without its folder"
                raise EngineError(f"{reason} transfer_queue", field=TRAINING)

    @property
    def _extra_fields(self) -> list[Extras]:
        if "extra_fields" not in self.columns:
            return [{} for _ in self.members]
        return [row or {} for row in self.member_column("extra_fields")]

    def member_column(self, name: str) -> list[Any]:
        """A field of the queue, for the members only."""
        column = self.columns[name]
        return [column[row] for row in self.members]

    def name_of(self, member: int) -> str:
        """The name of a member in errors."""
        return f"response {self.keys[self.members[member]]}"

    def logprobs(self, model: str) -> list[Tensor]:
        """A model's log-probs of each member's response, over all of its tokens.

        Args:
            model: "student", "teacher", "base" or "ref".

        Raises:
            EngineError: the queue has none, or it has several per token (a top-k teacher), or the
                teacher read only the last output of a session.
        """
        name = TEACHER if model == "teacher" else LOGPROBS.get(model, model)
        if name not in self.columns:
            raise EngineError("are not in the queue", field=f"{model}_logprobs")
        rows = self.member_column(name)
        if model != "teacher":
            return rows
        if self.has_several_outputs:
            reason = "verl asks the teacher only about the last of a session's outputs"
            raise EngineError(reason, field=TEACHER)
        prompts = self.member_column("prompts")
        return [
            _response_part(row, len(prompt), len(mask))
            for row, prompt, mask in zip(rows, prompts, self.masks, strict=True)
        ]

    def responses(
        self, tokenizer: Any, splitter: Splitter, models: Sequence[str] = ()
    ) -> list[Response]:
        """The members' responses, split into steps.

        Their facts: the data set's, `group`, log-probs, and the outcome where it is known.

        Args:
            tokenizer: the policy's, a fast one.
            splitter: splits responses into steps.
            models: models whose log-probs are added to the facts.

        Raises:
            RolloutError: a response that cannot be decoded or split, by its key.
        """
        logprobs = {f"{model}_logprobs": self.logprobs(model) for model in models}
        responses = []
        for member, row in enumerate(self.members):
            facts = {name: rows[member].tolist() for name, rows in logprobs.items()}
            response = Response.of_ids(
                question_of(self._at("raw_prompt", row), without=""),
                self.columns["responses"][row].tolist(),
                tokenizer,
                name=self.name_of(member),
                prompt_ids=tuple(self.columns["prompts"][row].tolist()),
                facts={**with_outcome(self._facts(row), self.outcomes[member]), **facts},
                own=tuple(self.columns["response_mask"][row].tolist()),
            )
            responses.append(splitter.split(response))
        return responses

    def _facts(self, row: int) -> dict[str, Any]:
        facts = dataset_facts(self._at("reward_model", row), self._at("extra_info", row))
        return {**facts, "group": str(self.columns["uid"][row])}

    def _at(self, name: str, row: int) -> Any:
        return self.columns[name][row] if name in self.columns else None


def session_of(key: str) -> tuple[str, int]:
    """The session that a key of the queue names, and the number of its output.

    Example:
        >>> session_of("some_uid_3_0")
        ('some_uid_3', 0)
    """
    session, _, output = key.rpartition("_")
    return session, int(output)


def unbind_rows(column: Any, dtype: torch.dtype | None = None) -> list[Any]:
    """A column of the queue as a list, one item per row, tensors on the CPU.

    Args:
        column: a tensor of any layout, an array or a list.
        dtype: the type of the tensors; None: their own.

    Example:
        >>> unbind_rows(torch.nested.nested_tensor([[1], [2, 3]], layout=torch.jagged))
        [tensor([1]), tensor([2, 3])]
    """
    if isinstance(column, Tensor):
        return list(_rows_of(column.to("cpu", dtype)))
    rows = column.tolist() if hasattr(column, "tolist") else list(column)
    return rows if dtype is None else [row.to("cpu", dtype) for row in rows]


def _rows_of(column: Any) -> Sequence[Tensor]:
    """The rows of a tensor; those of a jagged table in a tenth of the time of `unbind`."""
    if column.layout == torch.jagged and column.ndim == 2 and column.is_contiguous():
        return column.values().split(column.offsets().diff().tolist())
    return column.unbind()


def _response_part(row: Tensor, prompt: int, size: int) -> Tensor:
    """The log-probs of a response's tokens: that of token j is at position prompt - 1 + j."""
    flat = row.reshape(len(row), -1)
    if flat.shape[1] != 1:
        reason = f"expected the sampled token's, got the {flat.shape[1]} largest per token"
        raise EngineError(reason, field=TEACHER)
    return flat[prompt - 1 : prompt - 1 + size, 0]


def with_key(error: RolloutError, batch: QueuedBatch) -> RolloutError:
    """The error, naming the key of its row instead of the row's number."""
    if error.row is None:
        return error
    return error.at(place=batch.name_of(error.row))
