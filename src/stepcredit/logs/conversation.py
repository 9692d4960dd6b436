"""Messages of role and content: the question, and the response in parts."""

from __future__ import annotations

import json
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from stepcredit.errors import RolloutError, SignalError
from stepcredit.logs.logged_response import Part
from stepcredit.signals.chat import apply_chat_template

Message = Mapping[str, Any]
Note = Callable[[str], None]
REASONING = ("reasoning_content", "reasoning", "thinking")
_WORDS = ("tool_calls", "function_call", *REASONING)
_PLAIN = frozenset({"role", "content", "name", "tool_call_id", "tool_calls", "function_call", "id"})
_PLAIN_FORM = (
    "{n} with tool calls or reasoning in fields of their own: written as <tool_call> and <think>"
)
_TURNS = "{n} with several messages: joined with line breaks, without the marks of a template"
_TEMPLATE_FAILS = "{n}: the tokenizer's chat template can't render them turn by turn: %s"


def messages_in(value: Any, field: str) -> list[Message]:
    """A conversation: a list of messages, each with a role and a content.

    Raises:
        RolloutError: something else.
    """
    if isinstance(value, str):
        value = messages_in_text(value)
    if isinstance(value, list) and value and all(map(_is_message, value)):
        return value
    raise RolloutError("expected a text, or messages of role and content", field=field)


def messages_in_text(text: str) -> list[Message] | None:
    """Messages that a table holds as text: JSON, or what Python prints; None: it is another text.

    Example:
        >>> messages_in_text("[{'role': 'user', 'content': '2+3?'}]")
        [{'role': 'user', 'content': '2+3?'}]
        >>> messages_in_text("[2, 3]") is None
        True
    """
    if not text.lstrip().startswith("[{"):
        return None
    found = value_in_text(text)
    return found if isinstance(found, list) and all(map(_is_message, found)) else None


def value_in_text(text: str) -> Any:
    """The value of a text in JSON, or as Python prints it; None where it is neither."""
    for read in (json.loads, literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return read(text)
    return None


def _is_message(turn: Any) -> bool:
    if not _is_object(turn) or not isinstance(turn.get("role"), str):
        return False
    return "content" in turn or any(turn.get(name) is not None for name in _WORDS)


def _is_object(turn: Any) -> bool:
    return isinstance(turn, Mapping)


def question_of_messages(messages: Sequence[Message]) -> str:
    """The last user message's text; of a conversation without one, the last message's."""
    asked = [turn for turn in messages if turn["role"] in ("user", "human")]
    return text_of_content((asked or list(messages))[-1].get("content"))


def text_of_content(content: Any) -> str:
    """A message's text, where it is one, or the texts of its parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if _is_object(part))
    return content or ""


def parts_of(
    messages: Sequence[Message], prompt: Sequence[Message], tokenizer: Any, note: Note
) -> list[Part]:
    """The messages of a response as parts, one per message; an assistant's are the policy's.

    Messages with tool calls or with reasoning in a field of its own are rendered by the chat
    template of the tokenizer; without one, or where it would lose a word, in tags.

    Args:
        messages: the response's.
        prompt: those before it.
        tokenizer: the policy's, or None.
        note: called with what a user should know.
    """
    turns = [normal_message(turn, note) for turn in messages]
    owned = [turn["role"] == "assistant" for turn in turns]
    if all(map(_is_plain, turns)) and len(turns) == 1:
        return [(turn["content"], own) for turn, own in zip(turns, owned, strict=True)]
    if getattr(tokenizer, "chat_template", None):
        try:
            before = [normal_message(turn, note) for turn in prompt]
            return list(_rendered(before, turns, tokenizer))
        except (SignalError, RolloutError) as error:
            note(_TEMPLATE_FAILS % error.reason)
    note(_TURNS if all(map(_is_plain, turns)) else _PLAIN_FORM)
    return [(tagged_text(turn), own) for turn, own in zip(turns, owned, strict=True)]


def normal_message(turn: Message, note: Note) -> dict[str, Any]:
    """A message with text as content, reasoning as `reasoning_content`, and tool calls as objects.

    Fields that hold something else are noted.
    """
    made: dict[str, Any] = {"role": turn["role"], "content": text_of_content(turn.get("content"))}
    thoughts = [turn[name] for name in REASONING if isinstance(turn.get(name), str)]
    calls = list(turn.get("tool_calls") or [])
    calls += [turn["function_call"]] if turn.get("function_call") else []
    for part in turn.get("content") or () if isinstance(turn.get("content"), list) else ():
        kind = part.get("type") if _is_object(part) else type(part).__name__
        if kind == "thinking":
            thoughts.append(str(part.get("thinking") or ""))
        elif kind == "tool_use":
            calls.append({"name": part.get("name"), "arguments": part.get("input")})
        elif kind not in ("text", "tool_result") and turn["role"] == "assistant":
            note(f"{{n}} with a content part {kind!r}, which is left out")
    for name, value in turn.items():
        if name not in _PLAIN and name not in REASONING and value and turn["role"] == "assistant":
            note(f"{{n}} with a field {name!r} of a message, which is left out")
    made |= {"reasoning_content": thoughts[0]} if thoughts and thoughts[0] else {}
    made |= {"tool_calls": list(map(_call, calls))} if calls else {}
    made |= {"name": turn["name"]} if turn.get("name") else {}
    return made


def _call(call: Any) -> dict[str, Any]:
    if isinstance(call, str):  # verifiers writes each call as JSON
        read = value_in_text(call)
        call = read if _is_object(read) else call
    function = call.get("function", call) if _is_object(call) else {"name": str(call)}
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        with suppress(ValueError):
            arguments = json.loads(arguments)
    if isinstance(arguments, Mapping):  # a Parquet struct has every tool's arguments
        arguments = {name: value for name, value in arguments.items() if value is not None}
    function = {"name": function.get("name"), "arguments": {} if arguments is None else arguments}
    return {"type": "function", "function": function}


def _is_plain(turn: Message) -> bool:
    return not ("tool_calls" in turn or "reasoning_content" in turn)


def tagged_text(turn: Message) -> str:
    """A message as text, its reasoning in `<think>` and each tool call in `<tool_call>`.

    Example:
        >>> tagged_text({"content": "7", "reasoning_content": "3+4=7"})
        '<think>\\n3+4=7\\n</think>\\n\\n7'
    """
    thought = turn.get("reasoning_content")
    pieces = [f"<think>\n{thought}\n</think>\n\n"] if thought else []
    pieces.append(turn["content"])
    for call in turn.get("tool_calls", ()):
        line = json.dumps(call["function"], ensure_ascii=False)
        pieces.append(f"\n<tool_call>\n{line}\n</tool_call>")
    text = "".join(pieces).lstrip("\n")
    if turn.get("role") == "tool":
        return f"\n<tool_response>\n{text}\n</tool_response>\n"
    return text if turn.get("role", "assistant") == "assistant" else f"\n{text}\n"


def _rendered(
    prompt: Sequence[dict[str, Any]], turns: Sequence[dict[str, Any]], tokenizer: Any
) -> Iterator[Part]:
    """Each message as the chat template writes it, without what closes the last turn.

    Raises:
        RolloutError: the template changes earlier turns, or leaves out words of the policy.
        SignalError: the template fails.
    """
    closing = _closing(tokenizer)
    done = _render(tokenizer, prompt, turns[0]["role"] == "assistant")
    for at, turn in enumerate(turns):
        last = at == len(turns) - 1
        opens = not last and turns[at + 1]["role"] == "assistant" and turn["role"] != "assistant"
        whole = _render(tokenizer, [*prompt, *turns[: at + 1]], opens)
        if not whole.startswith(done):
            raise RolloutError("it writes earlier turns in another way")
        text = whole[len(done) :]
        text = text.removesuffix(closing) if last else text
        if turn["role"] == "assistant":
            _check_words(turn, text)
        yield text, turn["role"] == "assistant"
        done = whole


def _render(tokenizer: Any, messages: Sequence[dict[str, Any]], opens: bool) -> str:
    if not messages:
        return ""
    options = {"tokenize": False, "add_generation_prompt": opens}
    return str(apply_chat_template(tokenizer, list(messages), **options))


def _closing(tokenizer: Any) -> str:
    """What the template writes behind an assistant's last message."""
    answer = "\u2042answer\u2042"
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
    return _render(tokenizer, turns, False).rpartition(answer)[2]


def _check_words(turn: Message, text: str) -> None:
    words = [turn["content"].strip(), str(turn.get("reasoning_content", "")).strip()]
    for call in turn.get("tool_calls", ()):
        arguments = call["function"]["arguments"]
        values = list(arguments.values()) if isinstance(arguments, Mapping) else [arguments]
        words += [str(call["function"]["name"]), *(each for each in values if _is_word(each))]
    for each in words:
        if each not in text:
            raise RolloutError("it leaves out words of the policy")


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and value.isalnum()
