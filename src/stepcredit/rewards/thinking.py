"""Separates a response's thinking from its answer, whatever marks the thinking has."""

from __future__ import annotations

import re

_TAGS = "think|thinking|thought|reasoning|reflection|seed:think"
_OPEN = (
    rf"<(?:{_TAGS})>|\[THINK\]|<\|begin_of_thought\|>|<\|START_THINKING\|>|<\|think_start\|>"
    r"|\u25c1think\u25b7"
)
_CLOSE = (
    rf"</(?:{_TAGS})>|\[/THINK\]|<\|end_of_thought\|>|<\|END_THINKING\|>|<\|think_end\|>"
    r"|\u25c1/think\u25b7"
)
_MARK = re.compile(rf"(?P<close>{_CLOSE})|{_OPEN}", re.IGNORECASE)
_CHANNEL = re.compile(r"<\|channel\|>\s*(?P<name>[a-z]+)[^<]{0,80}<\|message\|>")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start)\|>")
_BARE_CHANNEL = re.compile(r"\s*analysis(?=[A-Z\"'(\d\\])")
_BARE_FINAL = "assistantfinal"


def after_thinking(text: str) -> str:
    """The text after the thinking; empty if the thinking is never closed.

    Marks are `<think>`, `<thinking>`, `<thought>`, `<reasoning>`, `[THINK]`, `<|begin_of_thought|>`
    and some more, in any case; and harmony's channels, of which only `final` is the answer. A text
    without a mark is returned whole. If the prompt opens the thinking, the response must close it,
    or its thinking cannot be separated from its answer.

    Example:
        >>> after_thinking("<think>5?</think>6"), after_thinking("<think>5"), after_thinking("5")
        ('6', '', '5')
        >>> after_thinking("[THINK]5?[/THINK]6"), after_thinking("<|begin_of_thought|>5")
        ('6', '')
        >>> after_thinking("<|channel|>analysis<|message|>5?<|end|><|start|>assistant"
        ...                "<|channel|>final<|message|>6")
        '6'
    """
    if "<|channel|>" in text:
        return _final_channel(text)
    if _BARE_CHANNEL.match(text):
        return text.rpartition(_BARE_FINAL)[2] if _BARE_FINAL in text else ""
    start = 0
    for mark in _MARK.finditer(text):
        start = mark.end() if mark["close"] else -1
    return "" if start < 0 else text[start:]


def _final_channel(text: str) -> str:
    """The last channel of harmony's format, if it is `final`."""
    channels = list(_CHANNEL.finditer(text))
    if not channels or channels[-1]["name"] != "final":
        return ""
    end = _CHANNEL_END.search(text, channels[-1].end())
    return text[channels[-1].end() : end.start() if end else len(text)]
