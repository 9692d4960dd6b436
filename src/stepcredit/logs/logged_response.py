"""The one record that every format of logs is read into."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stepcredit.data.rules import shown
from stepcredit.errors import RowError

Part = tuple[str, bool]
"""A piece of a response, and whether the policy wrote it."""


_KINDS: dict[Any, str] = {str: "a string", list: "a list", dict: "an object"}


class Record(NamedTuple):
    """One object of a log file: `line` is its line; its row in Parquet or in a JSON list."""

    path: str
    line: int
    fields: dict[str, Any]

    def needed(self, name: str, kind: type | tuple[type, ...] = object) -> Any:
        """A field's value.

        Args:
            name: the field.
            kind: what it has to be.

        Raises:
            RowError: it is absent or null, or something else.
        """
        value = self.fields.get(name)
        if value is None:
            raise self.fault("missing", name)
        if not isinstance(value, kind):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            named = " or ".join(_KINDS.get(each, each.__name__) for each in kinds)
            raise self.fault(f"expected {named}, got {shown(value, as_json=True)}", name)
        return value

    def there(self, name: str) -> Any:
        """A field's value, which may be null.

        Raises:
            RowError: it is absent.
        """
        return self.fields[name] if name in self.fields else self.needed(name)

    def fault(self, reason: str, field: str | None = None) -> RowError:
        """An error about this object."""
        return RowError(reason, path=self.path, line=self.line, field=field)


@dataclass(frozen=True)
class RewardColumns:
    """Which logged columns are rewards, and what the log does not tell.

    Args:
        outcome: the column of the outcome reward; None: the format's own default.
        format: the column of the format reward, if there is one.
        group_size: responses per prompt; None: all responses to a prompt form one group.
        tool_marks: pairs `OPEN...CLOSE` around what tools wrote, beside those that are known.
    """

    outcome: str | None = None
    format: str | None = None
    group_size: int | None = None
    tool_marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoggedResponse:
    """One logged response.

    Args:
        record: where it was read.
        key: equal for all responses of one group, such as the prompt.
        parts: the response's texts in order, and whether the policy wrote each.
        prompt: the question: a text.
        asked: the prompt as it was logged: a text or messages.
        step: the trainer's step; None where the log has none.
        rewards: the logged columns of this response, the rewards among them.
        default_outcome: the column that is the outcome unless another is named.
        row: further fields of the rollout, such as `answer`.
        has_id: whether `key` names the group, so that two groups of one prompt differ.
        step_labels: labels of the parts, by their index.
        fault: why the response can't be used, where its group is known.
    """

    record: Record
    key: Hashable
    parts: Sequence[Part]
    prompt: str
    asked: Any = None
    step: Any = None
    rewards: Mapping[str, Any] = field(default_factory=dict)
    default_outcome: str | None = None
    row: Mapping[str, Any] = field(default_factory=dict)
    has_id: bool = False
    step_labels: Mapping[int, float] | None = None
    fault: RowError | None = None

    @property
    def own_text(self) -> str:
        """What the policy wrote."""
        return "".join(text for text, own in self.parts if own)

    @property
    def is_empty(self) -> bool:
        """Whether the policy wrote nothing; a log without texts holds token ids alone."""
        return not self.own_text and (bool(self.parts) or not self.row.get("token_ids"))
