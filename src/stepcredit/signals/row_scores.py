"""Rows of a rollout file as responses, and their scores as members of the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile
from typing import Any

import numpy as np

from stepcredit.data.inputs import LOGPROBS
from stepcredit.errors import RolloutError, SignalError
from stepcredit.signals.chat import chat_prompt_ids
from stepcredit.signals.offsets import (
    Spans,
    pieces_of_spans,
    spans_of_ids,
    spans_of_pieces,
    spans_of_text,
    word_tokens,
)
from stepcredit.signals.responses import Response
from stepcredit.signals.splitting import BlankLine, Splitter
from stepcredit.signals.unscorable import scored_ends

LOGPROB_FIELDS = tuple(f"{model}_logprobs" for model in LOGPROBS)


@dataclass(frozen=True)
class RowReader:
    """How a row becomes a response.

    The response's tokens are the row's `token_ids`, or its `tokens`, or are made of its `text`: by
    the tokenizer, or without one as words with the space after them. Its steps are the splitter's,
    or without one the row's `step_ends`, or else its paragraphs.

    Args:
        tokenizer: the policy's, of transformers, a fast one.
        splitter: a rule of `stepcredit.signals.splitting`.
        question: the field that holds the question.
        chat: whether the prompt's tokens are those of the question as a user's turn in the chat
            template; otherwise they are those of its text.

    Example:
        >>> reader = RowReader()
        >>> row = reader.with_tokens({"group": 1, "prompt": "2+2?", "text": "It is 4.\\n\\nDone."})
        >>> row["tokens"], reader.response(row).step_texts
        (['It ', 'is ', '4.\\n\\n', 'Done.'], ['It is 4.\\n\\n', 'Done.'])
    """

    tokenizer: Any = None
    splitter: Splitter | None = None
    question: str = "prompt"
    chat: bool = False

    def with_tokens(self, fields: Mapping[str, Any], name: str = "") -> dict[str, Any]:
        """The row with its tokens, which are added if it had none.

        Raises:
            RolloutError: neither text nor tokens, or token ids that nothing can decode.
        """
        row = dict(fields)
        if "tokens" in row or "token_ids" in row:
            return row
        text = row.get("text")
        if not isinstance(text, str):
            wrong = f"expected a string, got {text!r}"
            reason = "missing: it is what is scored" if text is None else wrong
            raise RolloutError(reason, field="text", place=name or None)
        if self.tokenizer is None:
            row["tokens"] = word_tokens(text)
        else:
            ids, spans = spans_of_text(text, self.tokenizer)
            row["token_ids"], row["tokens"] = list(ids), pieces_of_spans(text, spans)
        return row

    def response(self, row: Mapping[str, Any], name: str = "") -> Response:
        """The response of a row that has tokens, split into steps.

        Raises:
            RolloutError: text and tokens that do not agree, or steps that cannot be cut.
        """
        text, spans = self._text_and_spans(row, name)
        prompt = row.get(self.question)
        response = Response(
            prompt=prompt if isinstance(prompt, str) else "",
            text=text,
            spans=spans,
            name=name,
            token_ids=_ids(row, "token_ids"),
            prompt_ids=_ids(row, "prompt_ids"),
            facts=row,
            own=None if row.get("loss_mask") is None else tuple(map(bool, row["loss_mask"])),
        )
        if self.tokenizer is not None and response.prompt_ids is None and response.prompt:
            response = replace(response, prompt_ids=self._prompt_ids(response))
        if self.splitter is None and "step_ends" in row:
            return _with_ends(response, row["step_ends"])
        return (self.splitter or BlankLine()).split(response)

    def _text_and_spans(self, row: Mapping[str, Any], name: str) -> tuple[str, Spans]:
        """The row's text, and where each of its tokens lies in it."""
        text, ids = row.get("text"), row.get("token_ids")
        if ids is not None and self.tokenizer is not None:
            if text is not None:
                known, spans = spans_of_text(text, self.tokenizer)
                if list(known) == list(ids):
                    return text, spans
            made, spans = spans_of_ids(ids, self.tokenizer)
            return self._agreed(text, made, name, "token_ids"), spans
        if "tokens" in row:
            made = "".join(row["tokens"])
            return self._agreed(text, made, name, "tokens"), spans_of_pieces(row["tokens"])
        reason = "their texts are unknown: name the tokenizer that made them"
        raise RolloutError(reason, field="token_ids", place=name or None)

    def _agreed(self, text: str | None, made: str, name: str, field: str) -> str:
        if text is not None and text.strip() != made.strip() and not made.startswith(text):
            here, there = _apart(made, text)
            reason = f"make {here}, but the text is {there}"
            raise RolloutError(reason, field=field, place=name or None)
        return made

    def _prompt_ids(self, response: Response) -> tuple[int, ...]:
        prompt = response.prompt
        if not self.chat:
            bos = self.tokenizer.bos_token
            is_templated = bos is not None and prompt.startswith(bos)
            found = self.tokenizer(prompt, add_special_tokens=not is_templated)
            return tuple(found["input_ids"])
        try:
            return chat_prompt_ids(self.tokenizer, prompt)
        except SignalError as error:
            raise RolloutError(error.reason, field=self.question, place=response.name) from None


def _apart(one: str, other: str) -> tuple[str, str]:
    """Two texts, shortened around the first place where they differ."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    return _cut(one, max(0, same - 10)), _cut(other, max(0, same - 10))


def _cut(text: str, start: int) -> str:
    end = start + 30
    return repr("..." * (start > 0) + text[start:end] + "..." * (end < len(text)))


def _ids(row: Mapping[str, Any], field: str) -> tuple[int, ...] | None:
    return tuple(row[field]) if row.get(field) is not None else None


def _with_ends(response: Response, ends: Sequence[int]) -> Response:
    """A response whose steps end with the given tokens, as the row has them.

    Only tokens show where an agent's turn ends: the last token may have no text.
    """
    stops = [response.spans[end][1] for end in ends[:-1]]
    steps = (*stops, len(response.text))
    if response.own is not None:
        return replace(response, steps=steps, ends=tuple(ends))
    if any(left >= right for left, right in pairwise((0, *steps))) and len(steps) > 1:
        reason = "a step has no text: split the response again"
        raise RolloutError(reason, field="step_ends", place=response.name)
    split = replace(response, steps=steps)
    if split.step_ends != list(ends):
        reason = f"are {list(ends)}, but by the text {split.step_ends}: split the response again"
        raise RolloutError(reason, field="step_ends", place=response.name)
    return split


def members(
    row: Mapping[str, Any],
    response: Response,
    scores: Sequence[float],
    grain: str,
    stream: str = "process",
) -> dict[str, Any]:
    """Scores as fields of a row, under a stream's name.

    Args:
        row: a row with tokens.
        response: the row's response.
        scores: one per step or token; where not all could be scored, those of the first steps, or
            none. No scores stand under `signals`, as empty lists.
        grain: `steps` or `tokens`.
        stream: `process`; a log-prob field such as `teacher_logprobs`; or another stream's name,
            whose scores stand under `signals`.

    Example:
        >>> split = BlankLine().split(Response.of_text("?", "a b\\n\\nc"))
        >>> members({}, split, [0.5, 1.0], "steps", "mine")
        {'signals': {'mine': {'scores': array([0.5, 1. ], dtype=float32), 'ends': [1, 2]}}}
    """
    values = np.asarray(scores, dtype=np.float32)
    if stream in LOGPROB_FIELDS:
        return {stream: values}
    ends = scored_ends(response.step_ends, len(scores)) if grain == "steps" else None
    if stream != "process" or not len(values):
        _refuse_to_leave_scores(row, response, stream)
        own = {"scores": values} | ({} if ends is None else {"ends": ends})
        return {"signals": {**row.get("signals", {}), stream: own}}
    if ends is None:
        return {"token_scores": values}
    if "step_states" in row and list(ends) != list(row.get("step_ends", ())):
        reason = "are of the row's step_ends: keep these steps, or give the scores another name"
        raise RolloutError(reason, field="step_states", place=response.name)
    return {"step_ends": ends, "step_scores": values}


def _refuse_to_leave_scores(row: Mapping[str, Any], response: Response, stream: str) -> None:
    """Refuse an unscored response whose row has scores of the stream, which would stay there."""
    for field in ("step_scores", "token_scores") if stream == "process" else ():
        if field in row:
            reason = "would stay: the response could not be scored now; remove the field first"
            raise RolloutError(reason, field=field, place=response.name)


def refuse_taken(row: Mapping[str, Any], grain: str, stream: str, *, replace: bool) -> None:
    """Refuse to write a stream that the row already has, or one of another kind than the row's.

    Raises:
        RolloutError: names the field and what to do.
    """
    if stream in LOGPROB_FIELDS:
        taken = stream if stream in row else None
    elif stream != "process":
        taken = f"signals.{stream}" if stream in row.get("signals", {}) else None
    else:
        own, other = ("step_scores", "token_scores")[:: 1 if grain == "steps" else -1]
        if other in row:
            reason = f"stand in the row: give scores of {grain} another name (--as)"
            raise RolloutError(reason, field=other)
        taken = own if own in row else None
    if taken and not replace:
        reason = "is there already: --replace it, or give the scores another name (--as)"
        raise RolloutError(reason, field=taken)
