"""prime-rl's token exports: one line per trained sequence, as tokens with their advantages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepcredit.logs.logged_response import LoggedResponse, Record
from stepcredit.logs.reading_context import LogFormat, ReadingContext

_FIELDS = frozenset({"token_ids", "loss_mask", "advantages", "inference_logprobs", "env_name"})
_READ = frozenset({"token_ids", "loss_mask", "advantages", "position_ids"})


def fits_token_export(fields: Mapping[str, Any]) -> bool:
    """Token ids with a mask, advantages and log-probs, and the environment's name."""
    return fields.keys() >= _FIELDS


def read_token_export(record: Record, context: ReadingContext) -> Iterator[LoggedResponse]:
    """The response of a sequence: its tokens from the first trained one on.

    The export has no reward and no group. Sequences of a step with equal tokens before the response
    are one group; the advantages are those that were trained with.
    """
    ids = record.needed("token_ids", list)
    mask = [int(bool(flag)) for flag in _per_token(record, "loss_mask", len(ids))]
    advantages = _per_token(record, "advantages", len(ids))
    if 1 not in mask:
        raise record.fault("has no trained token", "loss_mask")
    if None in advantages:
        raise record.fault("is null for some token: it was not finite", "advantages")
    first = mask.index(1)
    asked, said = ids[:first], ids[first:]
    tokenizer = context.tokenizer
    yield LoggedResponse(
        record,
        key=repr(asked),
        parts=[] if tokenizer is None else [(tokenizer.decode(said), True)],
        prompt="" if tokenizer is None else context.question(tokenizer.decode(asked), record),
        step=record.fields.get("step"),
        rewards={"env_name": record.fields["env_name"], **_streams(record, len(ids), first)},
        row={
            "token_ids": said,
            "prompt_ids": asked,
            "loss_mask": mask[first:],
            "advantages": [
                value if flag else 0.0
                for value, flag in zip(advantages[first:], mask[first:], strict=True)
            ],
        },
    )


def _per_token(record: Record, name: str, count: int) -> list[Any]:
    values: list[Any] = record.needed(name, list)
    if len(values) != count:
        raise record.fault(f"{len(values)} values, but there are {count} tokens", name)
    return values


def _streams(record: Record, count: int, first: int) -> dict[str, Any]:
    """The other lists of one value per token, over the response; none that is null throughout."""
    lists = {
        name: values[first:]
        for name, values in record.fields.items()
        if name not in _READ and isinstance(values, list) and len(values) == count
    }
    return {name: values for name, values in lists.items() if any(v is not None for v in values)}


PRIME_RL = LogFormat(
    "prime-rl-tokens",
    "prime-rl with `trainer.enable_token_export`, `token_exports/step_N/rank_M.jsonl`",
    "`token_ids`, `loss_mask`, `advantages`, `step`; the other lists of a value per token",
    "texts (`--tokenizer`), rewards, trajectories, groups (found by the prompts' tokens)",
    fits_token_export,
    read_token_export,
    ("step_*/rank_*.jsonl", "rank_*.jsonl"),
)
