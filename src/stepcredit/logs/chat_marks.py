"""Chat templates by their marks: the question of a prompt, and which text tools wrote.

A log holds prompts and responses as text, with a template's marks or, where special tokens were
left out, with what remains of them: ChatML becomes lines `user` and `assistant`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

USERS = frozenset({"user", "human"})
ASSISTANTS = frozenset({"assistant", "model", "chatbot", "gpt", "ai"})
PREFILLS = frozenset({"", "<think>", "<think></think>"})
"""What a template may write of the answer itself."""


class Turn(NamedTuple):
    """One turn of a conversation: `start` is where its head begins in the whole text."""

    role: str
    text: str
    start: int


@dataclass(frozen=True)
class ChatMarks:
    """The marks of a family of chat templates.

    Args:
        name: what to call it.
        head: what begins a turn, with its role as a group.
        end: what closes a turn.
        stripped: whether special tokens were left out, so that an ordinary line can look like a
            head: a text is a conversation only if it begins and ends with one.
    """

    name: str
    head: str
    end: str = r"\Z(?!)"
    stripped: bool = False

    def turns(self, text: str) -> list[Turn]:
        """The turns of a prompt; none where it is no conversation in these marks."""
        heads = list(self._heads(text))
        if not heads or (self.stripped and not self._is_framed(text, heads)):
            return []
        ends = [match.start() for _, match in heads[1:]] + [len(text)]
        return [
            Turn(role, self._closed(text[match.end() : end]), match.start())
            for (role, match), end in zip(heads, ends, strict=True)
        ]

    def _heads(self, text: str) -> Iterator[tuple[str, re.Match[str]]]:
        """Heads in turn. In a stripped text, roles alternate: a user's text may hold a head."""
        before = ""
        for match in re.finditer(self.head, text, re.MULTILINE):
            role = match["role"].lower()
            if not self.stripped or _follows(role, before):
                yield role, match
                before = role

    def _is_framed(self, text: str, heads: Sequence[tuple[str, re.Match[str]]]) -> bool:
        (_, first), (role, last) = heads[0], heads[-1]
        rest = "".join(text[last.end() :].split())
        return (
            first.start() == len(text) - len(text.lstrip())
            and role in ASSISTANTS
            and rest in PREFILLS
        )

    def _closed(self, text: str) -> str:
        return re.split(self.end, text, maxsplit=1)[0]


def _follows(role: str, before: str) -> bool:
    """Whether a stripped conversation can go on with this role."""
    if role == "system":
        return before == ""
    if role in USERS:
        return before in ASSISTANTS | {"", "system", "tool", "ipython"}
    return before not in ASSISTANTS | {"", "system"}


FAMILIES = (
    ChatMarks("ChatML", r"<\|im_start\|>(?P<role>\w+)(?: name=[^\n]*)?\n", r"<\|im_end\|>"),
    ChatMarks(
        "Llama 3",
        r"<\|start_header_id\|>(?P<role>\w+)<\|end_header_id\|>\n*",
        r"<\|eot_id\|>|<\|eom_id\|>",
    ),
    ChatMarks("Llama 4", r"<\|header_start\|>(?P<role>\w+)<\|header_end\|>\n*", r"<\|eot\|>"),
    ChatMarks("Gemma", r"<start_of_turn>(?P<role>\w+)\n", r"<end_of_turn>"),
    ChatMarks("Gemma 4", r"<\|turn>(?P<role>\w+)\n", r"<turn\|>"),
    ChatMarks("DeepSeek", r"<｜(?P<role>User|Assistant)｜>", r"<｜end▁of▁sentence｜>"),
    ChatMarks(
        "harmony",
        r"<\|start\|>(?P<role>\w+)(?:(?!<\|message\|>|<\|start\|>)[\s\S])*?(?:<\|message\|>|\Z)",
        r"<\|end\|>|<\|call\|>|<\|return\|>|<\|eot\|>",
    ),
    ChatMarks(
        "Cohere",
        r"<\|START_OF_TURN_TOKEN\|><\|(?P<role>USER|CHATBOT|SYSTEM)_TOKEN\|>"
        r"(?:<\|START_RESPONSE\|>|<\|START_TEXT\|>)?",
        r"<\|END_(?:OF_TURN_TOKEN|RESPONSE|TEXT)\|>",
    ),
    ChatMarks(
        "Kimi", r"<\|im_(?P<role>user|assistant|system)\|>[^<]*<\|im_middle\|>", r"<\|im_end\|>"
    ),
    ChatMarks(
        "Phi, Zephyr and GLM",
        r"<\|(?P<role>system|user|assistant|observation|tool)\|>\n?",
        r"<\|end\|>|</s>|<\|endoftext\|>",
    ),
    ChatMarks("Mistral", r"\[(?P<role>INST)\]", r"\[/INST\]"),
    ChatMarks(
        "ChatML or Gemma without special tokens",
        r"^(?P<role>system|user|assistant|model|tool)\n",
        stripped=True,
    ),
    ChatMarks(
        "Llama 3 without special tokens",
        r"(?P<role>system|user|assistant|ipython)\n\n",
        stripped=True,
    ),
)
"""The known families, those with distinct marks first."""
_LOOKS_MARKED = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>]{1,40}｜>|\[/?INST\]|<\|turn>|<(?:start|end)_of_turn>"
    r"|(?im:^(?:assistant|model|gpt) ?:?\Z)"
    r"|(?:\bAssistant|### (?:Response|Assistant)):[^\n]{0,80}\s*(?:<think>)?\s*\Z"
)
_TOOL_ANSWER = re.compile(
    r"\s*(?:<tool_response>[\s\S]*</tool_response>|```tool_outputs?[\s\S]*)\s*"
)


class Question(NamedTuple):
    """The question of a prompt, and the family of its template; None: the prompt as it is.

    `is_unknown` says that the prompt looks like a template that is not known, and `is_doubtful`
    that a text of it holds what looks like the head of a turn.
    """

    text: str
    family: str | None = None
    is_unknown: bool = False
    is_doubtful: bool = False


def question_in(prompt: str) -> Question:
    r"""The question of a prompt: the last user's turn, where it is a conversation in a template.

    Example:
        >>> question_in("<|im_start|>user\n2+3?<|im_end|>\n<|im_start|>assistant\n").text
        '2+3?'
        >>> question_in("system\nBe brief.\nuser\n2+3?\nassistant\n").text
        '2+3?'
        >>> question_in("2+3?")
        Question(text='2+3?', family=None, is_unknown=False, is_doubtful=False)
    """
    family = family_of(prompt)
    if family is None:
        return Question(prompt, is_unknown=_LOOKS_MARKED.search(prompt.rstrip()) is not None)
    text = _without_system(_asked(family, prompt)[-1]).strip()
    doubtful = family.stripped and _has_more_heads(family, prompt)
    return Question(text, family.name, is_doubtful=doubtful)


def _without_system(text: str) -> str:
    """A user's turn of Llama 2 without the system's text at its beginning."""
    opening, closed, rest = text.partition("<</SYS>>")
    return rest if closed and opening.lstrip().startswith("<<SYS>>") else text


def family_of(prompt: str) -> ChatMarks | None:
    """The family of templates in whose marks a user asks something; None: there is none."""
    return next((family for family in FAMILIES if _asked(family, prompt)), None)


def _asked(family: ChatMarks, prompt: str) -> list[str]:
    """What the user said in each turn, without the answers of tools."""
    texts = [turn.text for turn in family.turns(prompt) if turn.role in USERS | {"inst"}]
    return [text for text in texts if text.strip() and not _TOOL_ANSWER.fullmatch(text)]


def _has_more_heads(family: ChatMarks, prompt: str) -> bool:
    """Whether a text between heads looks like a head too, so that it may be cut elsewhere."""
    every = sum(1 for _ in re.finditer(family.head, prompt, re.MULTILINE))
    return every > len(family.turns(prompt))
