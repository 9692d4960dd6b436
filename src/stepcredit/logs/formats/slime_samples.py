"""slime's samples, as JSON or in its rollout dumps: with token ids and a loss mask."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from stepcredit.data.files.rows import TRAJECTORY
from stepcredit.errors import RowError
from stepcredit.logs.logged_fields import gold_in, response_text
from stepcredit.logs.logged_response import LoggedResponse, Part, Record
from stepcredit.logs.reading_context import LogFormat, ReadingContext

EVALUATION = re.compile(r"(?:^|.*[/\\_])eval_\d+\.pt")
"""How slime names the dumps of its evaluations, beside those of training."""
_FIELDS = frozenset({"prompt", "response", "response_length"})
_STEPS = frozenset({"step_ends", "step_scores"})
_READ = ("prompt", "response", "tokens", "response_length", "loss_mask", "label")


def fits_slime(fields: Mapping[str, Any]) -> bool:
    """A prompt, a response and the number of its tokens; or a dump with a list of such samples."""
    samples = fields.get("samples")
    if isinstance(samples, list) and samples and isinstance(samples[0], dict):
        return samples[0].keys() >= _FIELDS
    return fields.keys() >= _FIELDS


def read_slime(record: Record, context: ReadingContext) -> Iterator[LoggedResponse]:
    """The response of a sample, or those of a dump's `samples`.

    They have token ids and a mask; the group is `group_index`. The `rollout_id` of a dump is the
    trainer's step; that of a sample in it, which several samples may share, is their trajectory.
    """
    samples = record.fields.get("samples")
    if not isinstance(samples, list):
        yield from _read_sample(record, context)
        return
    for at, sample in enumerate(samples):
        if not isinstance(sample, dict):
            raise record.fault("expected an object", f"samples[{at}]")
        fields = dict(sample)
        if (trajectory := fields.pop("rollout_id", None)) is not None:
            fields[TRAJECTORY] = trajectory
        fields["rollout_id"] = record.fields.get("rollout_id")
        yield from _read_sample(Record(record.path, record.line, fields), context)


def select_training(records: list[Record], context: ReadingContext) -> list[Record]:
    """All rows, but those of an evaluation's dump, which stands beside those of training."""
    for record in records:
        if EVALUATION.fullmatch(record.path):
            reason = "is a dump of an evaluation by its name; under another name it is read"
            context.notes.leave_out(record.fault(reason))
            return []
    return records


def _read_sample(record: Record, context: ReadingContext) -> Iterator[LoggedResponse]:
    fields, text, asked = record.fields, response_text(record, "response"), record.needed("prompt")
    if fields.get("status") == "aborted":
        context.note("{n} with the status 'aborted': cut off by the trainer; trained here", record)
    group, gold = fields.get("group_index"), gold_in(fields.get("label"))
    tokens, fault = _tokens_or_fault(record)
    yield LoggedResponse(
        record,
        key=repr(asked) if group is None else ("group", repr(group)),
        parts=_parts(text, tokens, record, context),
        prompt=context.question(asked, record),
        step=fields.get("rollout_id"),
        rewards={**{name: fields[name] for name in fields if name not in _READ}, **_reward(fields)},
        default_outcome="reward",
        row={**tokens, **_steps(fields), **({} if gold is None else {"answer": gold})},
        has_id=group is not None,
        fault=fault,
    )


def _tokens_or_fault(record: Record) -> tuple[dict[str, Any], RowError | None]:
    """The token ids and mask of a sample, and why slime or this package does not train it."""
    if record.fields.get("remove_sample") is True:
        return {}, record.fault("slime does not train this response", "remove_sample")
    try:
        return _tokens(record), None
    except RowError as error:
        return {}, error


def _parts(
    text: str, tokens: Mapping[str, Any], record: Record, context: ReadingContext
) -> list[Part]:
    """The response whole where it has token ids, whose mask is the log's."""
    if not tokens:
        return context.parts(text, record, "response")
    if "loss_mask" not in tokens and not all(own for _, own in context.tool_marks.parts(text)):
        what = "{n} with a tool's answer by its marks, but without a loss_mask: it is trained"
        context.note(what, record)
    return [(text, True)]


def _reward(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The reward, which may be one of an object's."""
    reward = fields.get("reward")
    if not isinstance(reward, dict):
        return {}
    return {"reward": reward.get("score", reward.get("reward"))}


def _steps(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The step scores that a rollout function put into a sample's metadata, with the ends."""
    metadata = fields.get("metadata")
    if not isinstance(metadata, dict) or not metadata.keys() >= _STEPS:
        return {}
    return {name: metadata[name] for name in sorted(_STEPS)}


def _tokens(record: Record) -> dict[str, Any]:
    """The ids of prompt and response, and the mask over the response.

    Raises:
        RowError: lengths that do not fit.
    """
    fields = record.fields
    tokens, length, mask = (fields.get(name) for name in ("tokens", "response_length", "loss_mask"))
    if not isinstance(length, int) or not isinstance(tokens, list) or not tokens:
        return {}
    if length > len(tokens):
        raise record.fault(f"{length}, but there are {len(tokens)} tokens", "response_length")
    cut = len(tokens) - length
    row: dict[str, Any] = {"token_ids": tokens[cut:], "prompt_ids": tokens[:cut]}
    if mask is not None:
        if not isinstance(mask, list) or len(mask) != length:
            held = len(mask) if isinstance(mask, list) else repr(mask)
            raise record.fault(f"{held} values, but response_length is {length}", "loss_mask")
        wrong = [flag for flag in mask if flag not in (0, 1)]
        if wrong:
            raise record.fault(f"expected 0 or 1, got {wrong[0]!r}", "loss_mask")
        row["loss_mask"] = [int(flag) for flag in mask]
    return row


SLIME = LogFormat(
    "slime-samples",
    "slime, samples as JSON and rollout dumps (`.pt`)",
    "`prompt`, `response`, `tokens`, `loss_mask`, `label` (as `answer`), `reward`, `group_index`",
    "texts of the tokens (`--tokenizer`)",
    fits_slime,
    read_slime,
    ("*.jsonl", "*.pt"),
    select_training,
)
