"""What the readers of all formats are given beside a row: options, the tokenizer, the notes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stepcredit.errors import RolloutError
from stepcredit.logs.chat_marks import question_in
from stepcredit.logs.conversation import (
    Message,
    messages_in,
    messages_in_text,
    parts_of,
    question_of_messages,
)
from stepcredit.logs.log_notes import LogNotes
from stepcredit.logs.logged_response import LoggedResponse, Part, Record, RewardColumns
from stepcredit.logs.prompt_tokens import question_by_template
from stepcredit.logs.tool_marks import ToolMarks


@dataclass
class ReadingContext:
    """What the readers of all formats share.

    Args:
        columns: the reward columns and other options.
        tokenizer: the policy's; None: words are the tokens.
        notes: what a user should know.
        tool_marks: cuts out what tools wrote.
        previous: TRL's table before this one.
    """

    columns: RewardColumns
    tokenizer: Any = None
    notes: LogNotes = field(default_factory=LogNotes)
    tool_marks: ToolMarks = field(default_factory=ToolMarks)
    previous: list[Any] = field(default_factory=list)

    def question(self, prompt: Any, record: Record, name: str = "prompt") -> str:
        """The question of a prompt: a text, a text in a chat template, or messages.

        Raises:
            RowError: something else.
        """
        if not isinstance(prompt, str) or messages_in_text(prompt) is not None:
            prompt = question_of_messages(self.messages(prompt, record, name))
        found = question_in(prompt)
        if found.family is None and self.tokenizer is not None:
            question = question_by_template(prompt, self.tokenizer)
            if question is not None:
                return question
        if found.is_unknown:
            what = f"{name}: {{n}} to prompts that look like a chat template that is not known: "
            self.note(what + "signals are asked the whole text", record)
        if found.is_doubtful:
            what = f"{name}: {{n}} to prompts with a line in which a turn may begin: the question "
            self.note(what + "may be cut elsewhere", record)
        return found.text

    def messages(self, value: Any, record: Record, name: str) -> list[Message]:
        """Messages of role and content.

        Raises:
            RowError: something else.
        """
        try:
            return messages_in(value, name)
        except RolloutError as error:
            raise record.fault(error.reason, error.field) from None

    def parts(self, value: Any, record: Record, name: str, prompt: Any = None) -> list[Part]:
        """A response's parts: of a text by tool marks, of messages by their roles too.

        There are none where the response is null or an empty list.

        Raises:
            RowError: neither a text nor messages.
        """
        if value is None or value == []:  # nothing was said
            return []
        if isinstance(value, str) and messages_in_text(value) is None:
            return self._marked_parts(value, record)
        return [part for each in self.message_parts(value, record, name, prompt) for part in each]

    def message_parts(
        self, value: Any, record: Record, name: str, prompt: Any = None
    ) -> list[list[Part]]:
        """The parts of each message of a response.

        Raises:
            RowError: these are no messages.
        """
        messages = self.messages(value, record, name)
        before = prompt or []
        if isinstance(prompt, str):
            before = messages_in_text(prompt) or [{"role": "user", "content": prompt}]
        parts = parts_of(messages, before, self.tokenizer, lambda note: self.note(note, record))
        return [self._marked_parts(text, record) if own else [(text, own)] for text, own in parts]

    def _marked_parts(self, text: str, record: Record) -> list[Part]:
        parts = self.tool_marks.parts(text)
        if not all(own for _, own in parts):
            what = "{n} with a tool's answer by its marks, which is not trained (loss_mask 0); "
            self.note(what + "--tool-marks none trains it", record)
        mark = self.tool_marks.possible_mark("".join(text for text, own in parts if own))
        if mark is not None:
            what = f"{{n}} with {mark!r}, which may stand before a tool's answer: trained as the "
            what += "policy's; --tool-marks OPEN...CLOSE leaves it out, none says that it is right"
            self.note(what, record)
        return parts

    def note(self, what: str, record: Record) -> None:
        """Note something of a response."""
        self.notes.add(what, f"{record.path}:{record.line}")


Read = Callable[[Record, ReadingContext], Iterable[LoggedResponse]]
Select = Callable[[list[Record], ReadingContext], list[Record]]


def keep_all(records: list[Record], context: ReadingContext) -> list[Record]:
    """All rows of a file."""
    return records


@dataclass(frozen=True)
class LogFormat:
    """A format of logs.

    Args:
        name: as `--from` takes it.
        writer: who writes it.
        reads: what is read of it.
        lacks: what it does not hold.
        fits: whether a row's fields are this format's.
        read: the responses of a row.
        patterns: the files of a folder.
        select: which rows of a file are read.
    """

    name: str
    writer: str
    reads: str
    lacks: str
    fits: Callable[[Mapping[str, Any]], bool]
    read: Read
    patterns: tuple[str, ...] = ("*.jsonl",)
    select: Select = keep_all
