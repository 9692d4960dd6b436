"""The state that each step was taken in, by the tool calls before it or by any function."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from stepcredit.data.states import FIELD, keys_of_row, wrong_number
from stepcredit.errors import RolloutError, SettingError, SignalError
from stepcredit.keys import digest64
from stepcredit.settings.fields import check_fields, declare, is_whole
from stepcredit.signals.responses import Response

START = "start"
"""The state before the first call."""
TOOL_CALL = "tool_call"
_TAG = re.compile(r"[\w-]+")
StateFunction = Callable[[Response], Sequence[Any]]
"""Gives the states of a response's steps: one key per step, or several from the finest on."""


def tool_call_key(name: str, arguments: Any) -> str:
    """The key of a tool call: the same for the same name and arguments, however they are written.

        NAME:DIGEST, the digest of the arguments as canonical JSON

    The order of the arguments' fields and the space between them do not matter, 2 and 2.0 are the
    same, and so are an object and its JSON as a text.

    Args:
        name: of the tool.
        arguments: an object, a list, a text, or any other value that JSON has.

    Raises:
        ValueError, TypeError: arguments that JSON does not have.

    Example:
        >>> tool_call_key("add", {"a": 2, "b": 3}) == tool_call_key("add", '{"b": 3.0, "a":2}')
        True
        >>> tool_call_key("add", {"a": 2, "b": 3}) == tool_call_key("add", {"a": 2, "b": 4})
        False
    """
    canonical = json.dumps(
        _canonical(arguments), sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return f"{name.strip()}:{digest64(canonical):016x}"


def _canonical(value: Any) -> Any:
    """A value in which JSON texts are read, whole numbers have no point, texts no outer space."""
    if isinstance(value, str):
        text = value.strip()
        try:
            read = json.loads(text) if text[:1] in ("{", "[") else text
        except (ValueError, RecursionError):
            return text
        return _canonical(read) if isinstance(read, dict | list) else text
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(name): _canonical(inner) for name, inner in value.items()}
    return [_canonical(inner) for inner in value] if isinstance(value, list | tuple) else value


def _are_counts(value: Any) -> str | None:
    counts = list(value) if isinstance(value, list | tuple) else [value]
    whole = counts and not any(map(is_whole(at_least=1), counts))
    falls = whole and all(a > b for a, b in pairwise(counts))
    return None if falls else "a whole number of at least 1, or several that fall"


def _are_tags(value: Any) -> str | None:
    tags = isinstance(value, list | tuple) and len(value) > 0
    named = tags and all(isinstance(tag, str) and _TAG.fullmatch(tag) for tag in value)
    return None if named else "names of tags, such as tool_call"


@dataclass(frozen=True)
class ToolCallStates:
    """The state of each step as the last tool calls that the policy made before it.

        state_j = the keys of the last n calls in the steps before j, in order

    Where a tool always answers a call in the same way, two steps in the same state have read the
    same answer last. The calls are read from the text of the steps that the policy wrote:
    `<tool_call>{"name": ..., "arguments": ...}</tool_call>`, as chat templates and
    `stepcredit convert` write them, or `<TAG>...</TAG>` with the tag as the tool's name.

    Args:
        last: n; or several that fall, for as many keys per step, from the finest to the coarsest.
        tags: of the calls; `tool_call` holds JSON, any other the tool's argument as text.

    Returns:
        When called with a response that is split into steps: one key per step, or a list of keys if
        `last` is a list. "start" before the first call.

    Raises:
        SettingError: a field out of range.

    Example:
        >>> from stepcredit.signals.splitting import Newline
        >>> text = "<search>a</search>\\n<search> a </search>\\n<search>b</search>\\nDone."
        >>> response = Newline().split(Response.of_text("?", text))
        >>> states = ToolCallStates(tags=("search",))(response)
        >>> states[0], states[1] == states[2], states[2] == states[3]
        ('start', True, False)
    """

    last: int | Sequence[int] = declare(1, _are_counts, "calls that make a state")
    tags: Sequence[str] = declare((TOOL_CALL,), _are_tags, "tags of the calls")

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, response: Response) -> list[Any]:
        """The keys of each step."""
        calls: list[str] = []
        found: list[Any] = []
        steps = zip(response.step_texts, response.written_steps, strict=True)
        for text, written in steps:
            found.append(self._state(calls))
            calls += self._calls(text) if written else ()
        return found

    def _state(self, calls: Sequence[str]) -> Any:
        if isinstance(self.last, int):
            return _joined(calls[-self.last :])
        return [_joined(calls[-last:]) for last in self.last]

    def _calls(self, text: str) -> Iterator[str]:
        """The keys of a step's calls, in the order of the text."""
        names = "|".join(map(re.escape, self.tags))
        for match in re.finditer(rf"<({names})>(.*?)</\1>", text, re.DOTALL):
            tag, inner = match.groups()
            yield tool_call_key(*_named(inner)) if tag == TOOL_CALL else tool_call_key(tag, inner)


def _named(inner: str) -> tuple[str, Any]:
    """Name and arguments of a call in JSON; of anything else, no name and the whole text."""
    try:
        call = json.loads(inner)
        return str(call["name"]), call.get("arguments", call.get("parameters", {}))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "", " ".join(inner.split())


def _joined(calls: Sequence[str]) -> str:
    if len(calls) < 2:
        return calls[0] if calls else START
    return f"{len(calls)} calls:{digest64(' '.join(calls)):016x}"


def state_function(value: Any, last: int | Sequence[int] = 1, tags: Sequence[str] = ()) -> Any:
    """The function that gives states, by name.

    Args:
        value: "tool-calls", MODULE:FUNCTION, or a function of a response.
        last, tags: of `ToolCallStates`; no tags: its default.

    Raises:
        SettingError: a function that can't be imported, or fields out of range.

    Example:
        >>> state_function("tool-calls", last=2).last
        2
    """
    from stepcredit.signals.programs.functions import function_of, is_function

    if value == "tool-calls":
        return ToolCallStates(last, tuple(tags) or (TOOL_CALL,))
    expected = is_function(value)
    if expected:
        raise SettingError(f"expected tool-calls, or {expected}, got {value!r}", field="states")
    return function_of(value, "states")


def step_keys(response: Response, states: StateFunction) -> list[Any]:
    """The states of a response's steps, checked.

    Args:
        response: split into steps.
        states: gives them.

    Raises:
        RolloutError: another number of states than of steps, or a key that is neither a string nor
            an integer; it names the response.
        SignalError: the function fails.

    Example:
        >>> from stepcredit.signals.splitting import Newline
        >>> response = Newline().split(Response.of_text("?", "a\\nb", name="r:1"))
        >>> step_keys(response, lambda response: ["here"])
        Traceback (most recent call last):
        ...
        stepcredit.errors.RolloutError: r:1: step_states: 1 state, but 2 steps
    """
    try:
        found = list(states(response))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise SignalError(reason, field="states", place=response.name) from error
    return checked_keys(response, found)


def checked_keys(response: Response, found: Sequence[Any]) -> list[Any]:
    """The states of a response's steps as they were given, checked.

    Args:
        response: split into steps.
        found: one key per step, or several from the finest to the coarsest.

    Raises:
        RolloutError: as `step_keys`.
    """
    if len(found) != len(response.step_ends):
        reason = wrong_number(len(found), len(response.step_ends))
        raise RolloutError(reason, field=FIELD, place=response.name)
    try:
        keys = keys_of_row(found)
    except RolloutError as error:
        raise error.at(place=response.name) from error.__cause__
    return [key[0] if len(key) == 1 else list(key) for key in keys]
