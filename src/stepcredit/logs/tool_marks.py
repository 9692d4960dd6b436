"""Which text of an agent's response tools wrote: by a template's marks, or by those given."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stepcredit.errors import SettingError
from stepcredit.logs.logged_response import Part

_ROLES = r"(?:user|tool|ipython|environment|observation)"
_ANSWER_ENDS = r"</tool_response>\s*"
KNOWN_MARKS = (
    # ChatML, with its marks and without: from the end of the policy's turn to its next one
    (r"\n?<\|im_start\|>" + _ROLES + r"\n", r"<\|im_start\|>assistant\n|\Z"),
    (rf"\n{_ROLES}\n(?=<tool_response>)", _ANSWER_ENDS + r"(?:assistant\n|\Z)"),
    (r"\n(?:tool|ipython|environment|observation)\n", r"\nassistant\n"),
    # Llama 3, with its marks and without
    (
        r"<\|start_header_id\|>" + _ROLES + r"<\|end_header_id\|>",
        r"<\|start_header_id\|>assistant<\|end_header_id\|>\n*|\Z",
    ),
    (r"ipython\n\n", r"assistant\n\n"),
    # Gemma
    (r"\n?<start_of_turn>user\n", r"<start_of_turn>model\n|\Z"),
    # Mistral, DeepSeek, GLM
    (r"\[TOOL_RESULTS\]", r"\[/TOOL_RESULTS\]"),
    (r"<｜tool▁outputs▁begin｜>", r"<｜tool▁outputs▁end｜>"),
    (r"<\|observation\|>", r"<\|assistant\|>\n?|\Z"),
    # harmony
    (r"<\|start\|>functions\.", r"<\|start\|>assistant|\Z"),
    # a call and its answer in one turn
    (r"(?<=</tool_call>)\s*<tool_response>", _ANSWER_ENDS),
    (r"(?<=</search>)\s*<information>", r"</information>\s*"),
)
"""What begins and what ends a tool's answer in templates and of well-known agents."""
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
        pairs = [] if self.trusts_all else [*KNOWN_MARKS, *own]
        self._pairs = [(re.compile(opening), re.compile(closing)) for opening, closing in pairs]

    def parts(self, text: str) -> list[Part]:
        """The response in parts, each with whether the policy wrote it; together they are it."""
        parts: list[Part] = []
        at = 0
        for start, end in self._spans(text):
            if start >= at:
                parts += [(text[at:start], True), (text[start:end], False)]
                at = end
        parts.append((text[at:], True))
        return [(piece, own) for piece, own in parts if piece]

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where each pair of marks stands in the text; spans of several pairs may overlap.

        A pair is given up at its first opening mark without a closing one, so that the time is
        proportional to the length of the text.
        """
        found = []
        for opening, closing in self._pairs:
            at = 0
            while (first := opening.search(text, at)) is not None:
                last = closing.search(text, first.end())
                if last is None:
                    break
                found.append((first.start(), last.end()))
                at = max(last.end(), first.end())
                if at >= len(text):
                    break
        return sorted(found)

    def possible_mark(self, own: str) -> str | None:
        """A mark in the policy's own text that may stand before a tool's answer."""
        if self.trusts_all:
            return None
        return next((mark.strip() for mark in POSSIBLE_MARKS if mark in own), None)


def _pattern(pair: str) -> tuple[str, str]:
    opening, dots, closing = pair.partition("...")
    if not (opening and dots and closing):
        raise SettingError(f"--tool-marks {pair}: expected OPEN...CLOSE, or none")
    return re.escape(opening), re.escape(closing)
