r"""Rules that split a response into steps, by its text or by the policy's tokens.

A rule gives the characters where steps may end. The rest is the same for all rules: a delimiter and
the space after it belong to the step that they end, a step of only space is merged into its
neighbour, the unfinished end of a cut-off response is one more step, and an empty response is one
empty step.

A step must also end where a token ends, or it has no last token. Space between two steps may lie in
either's tokens (`.\n\n` and ` The` are both fine); a token that holds other characters of both is
refused by name, or the step is made to end with that token (`inside="extend"`). An agent's turns
are determined by tokens only.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, TypeVar

from stepcredit.errors import RolloutError
from stepcredit.settings.fields import check_fields, choice, declare, is_pattern
from stepcredit.settings.registry import Registry
from stepcredit.signals.offsets import gap_at, straddling, word_spans
from stepcredit.signals.responses import Response

Cls = TypeVar("Cls", bound="type[Splitter]")
BLANK_LINE = r"\n[^\S\n]*\n\s*"
NEWLINE = r"[\n\x85\u2028\u2029]\s*"
SENTENCE = (
    r"""[.!?]["'”’)\]}$*]*\s+(?=["'“‘「『（《【(\[$*\\]*(\w))|"""
    rf"""[。！？｡]+["'”’」』）》】)\]}}$*]*\s*|{NEWLINE}"""
)
EXTENDS = "the splitter's field inside=extend"
_INSIDE = "a step that ends inside a token: refuse it, or extend the step to that token's end"


@dataclass(frozen=True)
class Splitter(ABC):
    """Base class of the rules that split responses into steps; called with responses."""

    name: ClassVar[str] = ""
    inside: str = choice("refuse", ("refuse", "extend"), _INSIDE)

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def ends(self, response: Response) -> Iterable[int]:
        """Characters after which a step may end, increasing."""

    def __call__(self, responses: Sequence[Response]) -> list[Response]:
        """The responses split into steps, in the same order.

        Raises:
            RolloutError: a step that ends inside a token, under the response's name.
        """
        return [self.split(response) for response in responses]

    def split(self, response: Response) -> Response:
        """One response, split into steps."""
        return with_steps(response, self.ends(response), inside=self.inside)


def with_steps(response: Response, ends: Iterable[int], *, inside: str = "refuse") -> Response:
    """A response whose steps end at the given characters, as far as its tokens allow.

    Args:
        response: split or not.
        ends: increasing; an end before the first or after the last character that is not space
            ends nothing, and the last step ends with the text.
        inside: for an end inside a token: `refuse`, or `extend` the step to the token's end.

    Raises:
        RolloutError: an end inside a token, under the response's name.
    """
    kept = list(_kept(response, ends, inside))
    split = replace(response, steps=(*kept, len(response.text)), ends=None)
    for step, (before, last) in enumerate(pairwise((-1, *split.step_ends))):
        if last <= before:
            raise RolloutError(f"step {step} holds no token", field="steps", place=response.name)
    return split


def _kept(response: Response, ends: Iterable[int], inside: str) -> Iterator[int]:
    words, done, step = word_spans(response.text), 0, 0
    for end in ends:
        before, after = gap_at(words, end)
        while (token := straddling(response.spans, before, after)) is not None:
            start, stop = response.spans[token]
            if inside == "refuse":
                reason = f"step {step} ends inside token {token} ({response.text[start:stop]!r}); "
                reason += f"{EXTENDS} ends it with that token"
                raise RolloutError(reason, field="steps", place=response.name)
            before, after = gap_at(words, stop)
        if before > done and after < len(response.text):
            done, step = after, step + 1
            yield after


SPLITTERS = Registry[Splitter]("splitter", "stepcredit.splitters")


def splitter(name: str, /, **settings: Any) -> Splitter:
    """A splitter by its name.

    Raises:
        SettingError: an unknown splitter or field, or a value out of range.

    Example:
        >>> response = Response.of_text("?", "2 + 3 = 5.\\n\\nSo 5.")
        >>> splitter("blank-line").split(response).step_texts
        ['2 + 3 = 5.\\n\\n', 'So 5.']
    """
    return SPLITTERS.build(name, settings)


def register_splitter(name: str) -> Callable[[Cls], Cls]:
    """Give a splitter its name, for the command line and every engine.

    Args:
        name: its name.

    Raises:
        SettingError: another splitter has that name, or it is no dataclass.

    Example:
        >>> from dataclasses import dataclass
        >>> @register_splitter("at-semicolons")
        ... @dataclass(frozen=True)
        ... class AtSemicolons(Splitter):
        ...     def ends(self, response):
        ...         return [i + 1 for i, c in enumerate(response.text) if c == ";"]
        >>> splitter("at-semicolons").split(Response.of_text("?", "a; b")).step_texts
        ['a; ', 'b']
    """
    return SPLITTERS.register(name)


@dataclass(frozen=True)
class _Matches(Splitter):
    """Steps end after each match of a pattern."""

    rule: ClassVar[str]

    def ends(self, response: Response) -> Iterable[int]:
        return (match.end() for match in re.finditer(self.rule, response.text))


@register_splitter("blank-line")
@dataclass(frozen=True)
class BlankLine(_Matches):
    """Steps are paragraphs: they end at blank lines.

    Example:
        >>> BlankLine().split(Response.of_text("?", "a\\nb\\n \\nc")).step_texts
        ['a\\nb\\n \\n', 'c']
    """

    rule = BLANK_LINE


@register_splitter("newline")
@dataclass(frozen=True)
class Newline(_Matches):
    """Steps are lines; blank ones belong to the line before.

    Example:
        >>> Newline().split(Response.of_text("?", "a\\n\\nb\\n")).step_texts
        ['a\\n\\n', 'b\\n']
    """

    rule = NEWLINE


@register_splitter("sentence")
@dataclass(frozen=True)
class Sentence(_Matches):
    """Steps are sentences: `.`, `!` or `?`, then space, then a capital or a digit; or lines.

    The full-width `。`, `！` and `？` end a sentence whatever follows.

    Example:
        >>> text = "It is 3.5 e.g. here. So 7! Done"
        >>> Sentence().split(Response.of_text("?", text)).step_texts
        ['It is 3.5 e.g. here. ', 'So 7! ', 'Done']
    """

    rule = SENTENCE

    def ends(self, response: Response) -> Iterable[int]:
        found = re.finditer(self.rule, response.text)
        return (match.end() for match in found if _ends_sentence(match))


def _ends_sentence(match: re.Match[str]) -> bool:
    """Whether a mark ends a sentence: a full-width one does, others before no small letter."""
    return "\n" in match[0] or match[1] is None or not match[1].islower()


@register_splitter("regex")
@dataclass(frozen=True)
class Regex(Splitter):
    """Steps end after each match of a pattern, or begin with it.

    Example:
        >>> response = Response.of_text("?", "Step 1: a Step 2: b")
        >>> Regex(pattern=r"Step \\d", where="before").split(response).step_texts
        ['Step 1: a ', 'Step 2: b']
    """

    pattern: str = declare(BLANK_LINE, is_pattern, "a regular expression, in Python's syntax")
    where: str = choice("after", ("after", "before"), "whether a match ends a step or begins one")

    def ends(self, response: Response) -> Iterable[int]:
        matches = re.finditer(self.pattern, response.text)
        return (match.end() if self.where == "after" else match.start() for match in matches)


def _are_tags(value: Any) -> str | None:
    names = isinstance(value, list | tuple) and value and all(isinstance(tag, str) for tag in value)
    return None if names and all(re.fullmatch(r"[\w-]+", tag) for tag in value) else "names of tags"


@register_splitter("tags")
@dataclass(frozen=True)
class Tags(Splitter):
    """Steps are a template's elements: each ends with its closing tag.

    Example:
        >>> text = "<step>a b</step> <step>c</step> <answer>5</answer>"
        >>> Tags().split(Response.of_text("?", text)).step_texts
        ['<step>a b</step> ', '<step>c</step> ', '<answer>5</answer>']
    """

    tags: Sequence[str] = declare(("step", "think", "answer"), _are_tags, "names, without brackets")

    def ends(self, response: Response) -> Iterable[int]:
        names = "|".join(map(re.escape, self.tags))
        return (match.end() for match in re.finditer(rf"</(?:{names})>\s*", response.text))


@register_splitter("newline-tokens")
@dataclass(frozen=True)
class NewlineTokens(Splitter):
    """Steps end at the policy's tokens whose text ends in a blank line, as PURE splits.

    A run of tokens that hold only newlines counts, for a tokenizer that keeps newlines apart.

    Example:
        >>> response = Response("?", "a.\\n\\nb\\n\\n", spans=((0, 1), (1, 4), (4, 5), (5, 7)))
        >>> NewlineTokens().split(response).step_ends
        [1, 3]
        >>> apart = Response("?", "a\\n\\nb", spans=((0, 1), (1, 2), (2, 3), (3, 4)))
        >>> NewlineTokens().split(apart).step_ends
        [2, 3]

    Source: PURE. Differs: a token of space alone is no step, but joins the one before; a blank line
    may be written by several tokens.
    """

    def ends(self, response: Response) -> Iterable[int]:
        run = ""
        for start, end in response.spans:
            piece = response.text[start:end]
            run = run[-1:] + piece if piece.isspace() else ""
            if piece.endswith("\n\n") or run.endswith("\n\n"):
                yield end


@register_splitter("turns")
@dataclass(frozen=True)
class Turns(Splitter):
    """Steps are an agent's turns and, between them, the answers of its tools.

    It reads which tokens the policy wrote (`Response.own`, a row's `loss_mask`); without that, all
    is one turn. A tool's answer holds no trained token, so its score is left out of the
    credit. Space belongs to the turn of its token. A turn that holds only space or special tokens
    is a step too.

    Example:
        >>> spans = ((0, 2), (2, 4), (4, 7), (7, 9))
        >>> response = Response("?", "a b c> d.", spans, own=(True, True, False, True))
        >>> Turns().split(response).step_texts
        ['a b ', 'c> ', 'd.']
    """

    def ends(self, response: Response) -> Iterable[int]:
        return (response.spans[token][1] for token in self._last_tokens(response))

    def split(self, response: Response) -> Response:
        """One response, split where its tokens' writer changes."""
        *stops, _ = self.ends(response)
        ends = tuple(self._last_tokens(response))
        return replace(response, steps=(*stops, len(response.text)), ends=ends)

    def _last_tokens(self, response: Response) -> Iterator[int]:
        own = response.own or (True,) * response.num_tokens
        yield from (token for token, (one, next_) in enumerate(pairwise(own)) if one != next_)
        yield len(own) - 1
