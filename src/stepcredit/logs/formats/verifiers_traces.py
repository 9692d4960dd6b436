"""Traces of verifiers 0.4 (also those that prime-rl writes): one line per rollout, as messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stepcredit.logs.logged_response import LoggedResponse, Record
from stepcredit.logs.reading_context import LogFormat, ReadingContext

_COMPACTION, _ATTEMPT = "compaction", "compaction_attempt"
Node = Mapping[str, Any]


def fits_traces(fields: Mapping[str, Any]) -> bool:
    """A task, and a graph of messages."""
    nodes = fields.get("nodes")
    if not isinstance(nodes, list) or not isinstance(fields.get("task"), dict):
        return False
    return all(isinstance(node, dict) and "message" in node for node in nodes)


def read_traces(record: Record, context: ReadingContext) -> Iterator[LoggedResponse]:
    """The branches of a trace, each a response; several are parts of one trajectory.

    A message that several branches share belongs to the first of them: there it is trained, and in
    the others it is masked.
    """
    agent = record.fields.get("agent")
    if isinstance(agent, dict) and agent.get("trainable") is False:
        context.note("{n} of an agent that is not trained: left out", record)
        return
    nodes = [_node(record, at) for at in range(len(record.fields["nodes"]))]
    task = record.needed("task", dict)
    data = task.get("data") if isinstance(task.get("data"), dict) else {}
    name = next((task[key] for key in ("key", "hash") if task.get(key)), None)
    rewards = _rewards(record)
    branches = list(_branches(nodes))
    used: set[int] = set()
    for branch in branches:
        turns = [at for at in branch if nodes[at].get("sampled") and at not in used]
        used |= {*turns}
        if not turns:
            continue
        first = next(place for place, at in enumerate(branch) if nodes[at].get("sampled"))
        asked, said = branch[:first], branch[first : branch.index(turns[-1]) + 1]
        row = _tokens(record, nodes, said, {*turns})
        if len(branches) > 1:
            row["trajectory"] = str(record.fields.get("id") or record.line)
        yield LoggedResponse(
            record,
            key=repr(name if name is not None else data),
            parts=[(_text(nodes[at]["message"]), at in turns) for at in said],
            prompt=context.question([nodes[at]["message"] for at in asked] or "", record),
            rewards=rewards,
            default_outcome="reward",
            row=row,
            has_id=name is not None,
        )


def _node(record: Record, at: int) -> Node:
    node: Node = record.fields["nodes"][at]
    parent = node.get("parent")
    if parent is not None and not (isinstance(parent, int) and 0 <= parent < at):
        raise record.fault(
            f"expected an earlier message, got {parent!r:.40}", f"nodes[{at}].parent"
        )
    return node


def _branches(nodes: Sequence[Node]) -> Iterator[list[int]]:
    """The paths from a root to each leaf; an attempt at a compaction that was dropped is none."""
    inner = {node["parent"] for node in nodes if node.get("parent") is not None}
    accepted = {link.get("node") for node in nodes for link in _links(node, _COMPACTION)}
    for leaf in range(len(nodes)):
        if leaf in inner or (leaf not in accepted and any(_links(nodes[leaf], _ATTEMPT))):
            continue
        path = [leaf]
        while (parent := nodes[path[-1]].get("parent")) is not None:
            path.append(parent)
        yield path[::-1]


def _links(node: Node, kind: str) -> list[Mapping[str, Any]]:
    links = node.get("semantic_parents") or []
    return [link for link in links if isinstance(link, dict) and link.get("type") == kind]


def _rewards(record: Record) -> dict[str, Any]:
    """The weighted sum of the rewards, unknown where scoring did not run; and each one."""
    named = record.fields.get("rewards") or {}
    if not isinstance(named, dict):
        raise record.fault("expected an object", "rewards")
    values = dict[str, float | None]()
    for name, reward in named.items():
        given = reward if isinstance(reward, dict) else {"score": reward}
        score, weight = given.get("score"), given.get("weight", 1.0)
        for value in (score, weight):
            if value is not None and not isinstance(value, int | float):
                raise record.fault(f"expected a number, got {value!r:.40}", f"rewards.{name}")
        values[name] = None if score is None else score * weight
    known = [value for value in values.values() if value is not None]
    total = sum(known) if values and len(known) == len(values) else None
    return {**values, "reward": total}


def _text(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else message
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content or ""


def _tokens(
    record: Record, nodes: Sequence[Node], path: Sequence[int], turns: set[int]
) -> dict[str, Any]:
    """Token ids, mask, ends of turns and advantages; nothing where a message has no ids.

    The last message of the path is a turn.

    Raises:
        RowError: lists of a message that do not fit its token ids.
    """
    ids, mask, ends, advantages = list[int](), list[int](), list[int](), list[float]()
    for at in path:
        own, flags = nodes[at].get("token_ids") or [], nodes[at].get("mask") or []
        if not own:
            return {}
        if len(flags) != len(own):
            reason = f"{len(flags)} values, but the message has {len(own)} tokens"
            raise record.fault(reason, f"nodes[{at}].mask")
        trained = [int(bool(flag) and at in turns) for flag in flags]
        advantages += _credit(record, nodes[at], at, trained)
        ids, mask = ids + own, mask + trained
        if at in turns:
            ends.append(len(ids) - 1)
    row: dict[str, Any] = {"token_ids": ids, "loss_mask": mask, "step_ends": ends}
    held = any(nodes[at].get("advantages") is not None for at in turns)
    return {**row, "advantages": advantages} if held else row


def _credit(record: Record, node: Node, at: int, trained: Sequence[int]) -> list[float]:
    """A message's advantages on its tokens: 0 where it is not sampled.

    The trace has one number per sampled token; a turn without any was not scored, which is 0 here.
    """
    held = node.get("advantages")
    if held is None or not any(trained):
        return [0.0] * len(trained)
    if len(held) != sum(trained):
        reason = f"{len(held)} values, but {sum(trained)} tokens are sampled"
        raise record.fault(reason, f"nodes[{at}].advantages")
    values = iter(held)
    return [next(values) if flag else 0.0 for flag in trained]


TRACES = LogFormat(
    "verifiers-traces",
    "verifiers 0.4 and prime-rl, traces",
    "`nodes` (messages, `token_ids`, `mask`, `advantages`), `rewards` (their weighted sum), `task`",
    "texts of the tokens (`--tokenizer`), training steps",
    fits_traces,
    read_traces,
    ("traces.jsonl", "*.jsonl"),
)
