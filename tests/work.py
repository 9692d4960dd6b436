"""Counts the work of regular expressions and of Python code, so that tests need no clock.

A small backtracking matcher tries what Python's own `re` tries, in the same
order, and counts every test of a character or position. Results are those of `re` itself.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any

import pytest

parser, codes = re._parser, re._constants  # type: ignore[attr-defined]
CATEGORIES = {
    codes.CATEGORY_DIGIT: r"\d",
    codes.CATEGORY_NOT_DIGIT: r"\D",
    codes.CATEGORY_SPACE: r"\s",
    codes.CATEGORY_NOT_SPACE: r"\S",
    codes.CATEGORY_WORD: r"\w",
    codes.CATEGORY_NOT_WORD: r"\W",
}
CATEGORY_PATTERNS = {code: re.compile(text) for code, text in CATEGORIES.items()}


class Counter:
    """How many characters and positions were tested."""

    def __init__(self) -> None:
        self.steps = 0

    @contextmanager
    def lines_of(self, *modules: ModuleType) -> Iterator[None]:
        """Count the lines of Python that run in some modules, too."""
        files = {module.__file__ for module in modules}

        def trace(frame: FrameType, event: str, given: Any) -> Any:
            if frame.f_code.co_filename not in files:
                return None
            self.steps += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(before)

    def ends(self, tree: Any, text: str, start: int, flags: int) -> Iterator[int]:
        """Where a match that begins at `start` may end, in the order in which `re` tries them."""
        return self._sequence(list(tree), 0, text, start, flags)

    def scan(self, pattern: re.Pattern[str], text: str, method: str) -> None:
        """Count what a method of a compiled pattern takes on a text."""
        tree, position = parser.parse(pattern.pattern, pattern.flags), 0
        while position <= len(text):
            ends = self.ends(tree, text, position, pattern.flags)
            end = next((end for end in ends if method != "fullmatch" or end == len(text)), None)
            if method in ("match", "fullmatch") or (method == "search" and end is not None):
                return
            position = position + 1 if end is None else max(end, position + 1)

    def _sequence(
        self, nodes: list[Any], index: int, text: str, at: int, flags: int
    ) -> Iterator[int]:
        if index == len(nodes):
            yield at
            return
        for middle in self._node(nodes[index], text, at, flags):
            yield from self._sequence(nodes, index + 1, text, middle, flags)

    def _node(self, node: Any, text: str, at: int, flags: int) -> Iterator[int]:
        op, given = node
        if op in (codes.MAX_REPEAT, codes.MIN_REPEAT):
            yield from self._repeat(given, text, at, flags, greedy=op is codes.MAX_REPEAT)
        elif op is codes.SUBPATTERN:
            yield from self.ends(given[3], text, at, (flags | given[1]) & ~given[2])
        elif op is codes.BRANCH:
            for branch in given[1]:
                yield from self.ends(branch, text, at, flags)
        elif op in (codes.ASSERT, codes.ASSERT_NOT):
            direction, inner = given
            start = at if direction > 0 else at - inner.getwidth()[0]
            holds = start >= 0 and next(self.ends(inner, text, start, flags), None) is not None
            if holds is (op is codes.ASSERT):
                yield at
        elif op is codes.AT:
            self.steps += 1
            if _stands(given, text, at, flags):
                yield at
        else:
            self.steps += 1
            if at < len(text) and _is(op, given, text[at], flags):
                yield at + 1

    def _repeat(self, given: Any, text: str, at: int, flags: int, *, greedy: bool) -> Iterator[int]:
        least, most, inner = given
        if len(inner) == 1 and inner.getwidth() == (1, 1):
            reached = [at]
            while len(reached) <= most:
                end = next(self.ends(inner, text, reached[-1], flags), None)
                if end is None:
                    break
                reached.append(end)
            choices = reached[least:]
            yield from reversed(choices) if greedy else choices
            return
        if least == 0 and not greedy:
            yield at
        if most > 0:
            rest = (max(least - 1, 0), most - 1, inner)
            for end in self.ends(inner, text, at, flags):
                if end > at:
                    yield from self._repeat(rest, text, end, flags, greedy=greedy)
        if least == 0 and greedy:
            yield at


def _is(op: Any, given: Any, character: str, flags: int) -> bool:
    """Whether one character is what a node of one character wants."""
    if flags & re.IGNORECASE:
        character = character.lower()
    if op is codes.LITERAL:
        return (chr(given).lower() if flags & re.IGNORECASE else chr(given)) == character
    if op is codes.NOT_LITERAL:
        return chr(given) != character
    if op is codes.ANY:
        return character != "\n" or bool(flags & re.DOTALL)
    if op is codes.CATEGORY:
        return CATEGORY_PATTERNS[given].fullmatch(character) is not None
    if op is codes.RANGE:
        return given[0] <= ord(character) <= given[1]
    assert op is codes.IN, op
    negated = given[0][0] is codes.NEGATE
    members = given[1:] if negated else given
    return negated is not any(_is(*member, character, flags) for member in members)


def _stands(code: Any, text: str, at: int, flags: int) -> bool:
    """Whether a position is what an anchor wants."""
    if code is codes.AT_BEGINNING:
        return at == 0 or (bool(flags & re.MULTILINE) and text[at - 1] == "\n")
    if code is codes.AT_BEGINNING_STRING:
        return at == 0
    if code is codes.AT_END_STRING:
        return at == len(text)
    if code is codes.AT_END:
        last = at == len(text) or (at == len(text) - 1 and text[at] == "\n")
        return last or (bool(flags & re.MULTILINE) and text[at] == "\n")
    assert code in (codes.AT_BOUNDARY, codes.AT_NON_BOUNDARY), code
    left, right = (
        re.match(r"\w", one) is not None for one in (text[at - 1 : at], text[at : at + 1])
    )
    return (left is not right) is (code is codes.AT_BOUNDARY)


class CountedPattern:
    """A compiled pattern whose work is counted."""

    def __init__(self, pattern: re.Pattern[str], counter: Counter) -> None:
        self._pattern, self._counter = pattern, counter

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*given: Any, **rest: Any) -> Any:
            text = given[1] if name in ("sub", "subn") else given[0]
            self._counter.scan(self._pattern, text, name)
            return getattr(self._pattern, name)(*given, **rest)

        return call


class CountedModule:
    """`re`, with the work of its functions counted."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    def __getattr__(self, name: str) -> Any:
        if name not in ("match", "fullmatch", "search", "findall", "finditer", "sub", "split"):
            return getattr(re, name)

        def call(pattern: str, *given: Any, flags: int = 0, **rest: Any) -> Any:
            counted = CountedPattern(re.compile(pattern, flags), self._counter)
            return getattr(counted, name)(*given, **rest)

        return call


def count_regexes(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> Counter:
    """Count the work of all regular expressions that modules use, from now on."""
    counter = Counter()

    def counted(value: Any) -> Any:
        if isinstance(value, re.Pattern):
            return CountedPattern(value, counter)
        return tuple(map(counted, value)) if isinstance(value, tuple) else value

    for module in modules:
        for name, value in list(vars(module).items()):
            if value is re:
                monkeypatch.setattr(module, name, CountedModule(counter))
            elif isinstance(value, re.Pattern | tuple) and not name.startswith("__"):
                monkeypatch.setattr(module, name, counted(value))
    return counter


def assert_linear(
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[[int], object],
    sizes: tuple[int, int],
    *modules: ModuleType,
) -> None:
    """The work of some modules on a text twice as long is less than 2.5 times as much.

    Args:
        monkeypatch: puts the modules' regular expressions back.
        run: works on a text of the given size.
        sizes: of two texts, the second twice as long.
        modules: whose regular expressions and lines are counted.
    """
    counter, work = count_regexes(monkeypatch, *modules), []
    for size in sizes:
        counter.steps = 0
        with counter.lines_of(*modules):
            run(size)
        work.append(counter.steps)
    assert sizes[1] == 2 * sizes[0]
    assert 0 < work[1] < 2.5 * work[0]
