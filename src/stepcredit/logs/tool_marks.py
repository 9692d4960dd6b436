"""Which text of an agent's response tools wrote: by a template's marks, or by those given."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stepcredit.errors import SettingError
from stepcredit.logs.logged_response import Part

_ROLES = r"(?:user|tool|ipython|environment|observation)"
_ANSWER = r"<tool_response>[\s\S]*?</tool_response>"
KNOWN_MARKS = (
    # ChatML, with its marks and without: from the end of the policy's turn to its next one
    r"\n?<\|im_start\|>" + _ROLES + r"\n[\s\S]*?(?:<\|im_start\|>assistant\n|\Z)",
    rf"\n{_ROLES}\n(?:{_ANSWER}\s*)+(?:assistant\n|\Z)",
    r"\n(?:tool|ipython|environment|observation)\n[\s\S]*?\nassistant\n",
    # Llama 3, with its marks and without
    r"<\|start_header_id\|>" + _ROLES + r"<\|end_header_id\|>[\s\S]*?"
    r"(?:<\|start_header_id\|>assistant<\|end_header_id\|>\n*|\Z)",
    r"ipython\n\n[\s\S]*?assistant\n\n",
    # Gemma
    r"\n?<start_of_turn>user\n[\s\S]*?(?:<start_of_turn>model\n|\Z)",
    # Mistral, DeepSeek, GLM
    r"\[TOOL_RESULTS\][\s\S]*?\[/TOOL_RESULTS\]",
    r"<｜tool▁outputs▁begin｜>[\s\S]*?<｜tool▁outputs▁end｜>",
    r"<\|observation\|>[\s\S]*?(?:<\|assistant\|>\n?|\Z)",
    # harmony
    r"<\|start\|>functions\.[\s\S]*?(?:<\|start\|>assistant|\Z)",
    # a call and its answer in one turn
    r"(?<=</tool_call>)\s*" + _ANSWER + r"\s*",
    r"(?<=</search>)\s*<information>[\s\S]*?</information>\s*",
)
"""Regular expressions of what templates and well-known agents put around a tool's answer."""
POSSIBLE_MARKS = (
    "<tool_response>",
    "<information>",
    "<result>",
    "<observation>",
    "<interpreter>",
    "<output>",
    "```output",
    "\nuser\n",
)
"""Marks of tools' answers that a policy may write as well."""


class ToolMarks:
    """Cuts a response into what the policy wrote and what tools wrote.

    Args:
        given: pairs `OPEN...CLOSE` beside the known marks; `none`: all is the policy's.

    Raises:
        SettingError: a pair of another form.

    Example:
        >>> ToolMarks().parts("<search>x</search><information>y</information> So z.")
        [('<search>x</search>', True), ('<information>y</information> ', False), ('So z.', True)]
        >>> ToolMarks(["<r>...</r>"]).parts("a<r>b</r>")
        [('a', True), ('<r>b</r>', False)]
    """

    def __init__(self, given: Sequence[str] = ()) -> None:
        self.trusts_all = "none" in given
        own = [_pattern(pair) for pair in given if pair != "none"]
        patterns = [] if self.trusts_all else [*KNOWN_MARKS, *own]
        self._found = re.compile("|".join(f"(?:{each})" for each in patterns) or r"(?!)")

    def parts(self, text: str) -> list[Part]:
        """The response in parts, each with whether the policy wrote it; together they are it."""
        parts: list[Part] = []
        at = 0
        for match in self._found.finditer(text):
            parts += [(text[at : match.start()], True), (match[0], False)]
            at = match.end()
        parts.append((text[at:], True))
        return [(piece, own) for piece, own in parts if piece]

    def possible_mark(self, own: str) -> str | None:
        """A mark in the policy's own text that may stand before a tool's answer."""
        if self.trusts_all:
            return None
        return next((mark.strip() for mark in POSSIBLE_MARKS if mark in own), None)


def _pattern(pair: str) -> str:
    opening, dots, closing = pair.partition("...")
    if not (opening and dots and closing):
        raise SettingError(f"--tool-marks {pair}: expected OPEN...CLOSE, or none")
    return re.escape(opening) + r"[\s\S]*?" + re.escape(closing)
