"""Each rule that cuts a text into steps, by cases written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from tests.work import assert_linear

from stepcredit.errors import RolloutError, SettingError
from stepcredit.signals import offsets, responses, splitting
from stepcredit.signals.offsets import spans_of_pieces
from stepcredit.signals.responses import Response
from stepcredit.signals.row_scores import RowReader
from stepcredit.signals.splitting import SPLITTERS, splitter

LONG = 100_000
CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("blank-line", {}, ["one\n\n", "two\n\n", "three"]),
    ("blank-line", {}, ["a\nb\n \t\n", "c"]),
    ("blank-line", {}, ["a\r\n\r\n", "b\r\n\r\n\r\n", "c\r\n"]),
    ("blank-line", {}, ["\n\n  a\n\n\n\n  ", "b\n\n"]),
    ("blank-line", {}, ["cut off in mid\n\n", "sentence which"]),
    ("blank-line", {}, ["a\n\u3000\n", "日本語。\n\n", "🍎"]),
    ("blank-line", {}, ["no blank line\nhere\n"]),
    ("blank-line", {}, [""]),
    ("blank-line", {}, [" \n\n \n"]),
    ("newline", {}, ["one\n", "two\n\n  ", "three\r\n", "four"]),
    ("newline", {}, ["\na\n", "b\n\n"]),
    ("sentence", {}, ["It is 3.5 kg. ", "So 7! ", "Right? ", "Yes, e.g. here."]),
    ("sentence", {}, ["He said “No.” ", "“Why?” ", "(Because.) ", "$X$ is 2. ", "5 more"]),
    ("sentence", {}, ["A line without a stop\n", "and another.\n", "lower case. too"]),
    ("sentence", {}, ["C'est tout. ", "Était-ce vrai? ", "Да. ", "Нет. ", "ΟΚ. και"]),
    ("sentence", {}, ["So it is \\(4\\). ", "Then \\[x\\]. \\boxed{4}."]),
    ("sentence", {}, ["It grew... and grew."]),
    ("sentence", {}, ["答案是七。", "3+4=7！", "对吗？", "「对。」", "因此结束。"]),
    ("sentence", {}, ["共３．５元。 ", "５个是7元！！\n", "好"]),
    ("sentence", {}, ["(３+４=7。)", "So 7. ", "「Yes」"]),
    ("newline", {}, ["第一行，\n", "第二行\u2028", "第三行。\u3000\n\u3000", "第四行"]),
    ("tags", {}, ["<think>a\n\nb</think>\n", "<answer>5</answer>\n"]),
    ("tags", {}, ["<step>a</step>", "<step>b</step> ", "<step>cut"]),
    ("tags", {}, ["</step a><stepp>x</stepp>< /step>"]),
    ("tags", {"tags": ["plan"]}, ["<plan>a</plan> ", "<step>b</step> c"]),
    ("regex", {"pattern": r"\n\n(?=Step)"}, ["Step 1\n\nmore\n\n", "Step 2"]),
    ("regex", {"pattern": ";"}, ["a; ", "b;  \n", "c"]),
    ("regex", {"pattern": r"Step \d", "where": "before"}, ["Intro. ", "Step 1: a ", "Step 2: b"]),
    ("regex", {"pattern": ""}, ["a", "b ", "é"]),
    ("regex", {"pattern": "x*"}, ["axx", "b"]),
    ("regex", {"pattern": "never"}, ["a b"]),
]
SPANNED: list[tuple[list[str], list[str], list[int]]] = [
    (["a", ".\n\n", "b", "\n\n"], ["a.\n\n", "b\n\n"], [1, 3]),
    (["a", ".\n\n", "\n", "b"], ["a.\n\n\n", "b"], [2, 3]),
    (["a", ".\n", "\n", "b"], ["a.\n\nb"], [3]),
    (["\n\n", "a", "\n\n", "\n\n", "b", ""], ["\n\na\n\n\n\n", "b"], [3, 5]),
    (["a\r\n\r\n", "b"], ["a\r\n\r\nb"], [1]),
    (["", ""], [""], [1]),
    (["a", "\n", "\n", "b", "\n", "\n", "\n", "c"], ["a\n\n", "b\n\n\n", "c"], [2, 6, 7]),
    (["a", ".", "\n", "\n", "b", "\n", "c"], ["a.\n\n", "b\nc"], [3, 6]),
    (["\n", "\n", "a", "\n", "\n"], ["\n\na\n\n"], [4]),
]


def by_letters(text: str) -> Response:
    return Response("?", text, tuple((at, at + 1) for at in range(len(text))) or ((0, 0),))


@pytest.mark.parametrize(("name", "fields", "steps"), CASES)
def test_a_text_is_cut_where_a_reader_would(
    name: str, fields: dict[str, Any], steps: list[str]
) -> None:
    split = splitter(name, **fields).split(by_letters("".join(steps)))
    assert split.step_texts == steps


@pytest.mark.parametrize(("tokens", "steps", "ends"), SPANNED)
def test_newline_tokens_cut_after_tokens_that_end_in_a_blank_line(
    tokens: Sequence[str], steps: list[str], ends: list[int]
) -> None:
    text, spans = "", []
    for token in tokens:
        spans.append((len(text), len(text) + len(token)))
        text += token
    split = splitter("newline-tokens").split(Response("?", text, tuple(spans)))
    assert (split.step_texts, split.step_ends) == (steps, ends)


TURNS: list[tuple[list[str], list[int], list[str], list[int]]] = [
    (["a", "b", "T", "T", "c"], [1, 1, 0, 0, 1], ["ab", "TT", "c"], [1, 3, 4]),
    (["T", "a", "", "", "T", "b", ""], [0, 1, 1, 0, 0, 1, 1], ["T", "a", "T", "b"], [0, 2, 4, 6]),
    (["a ", "T", "\n", "b"], [1, 0, 0, 1], ["a ", "T\n", "b"], [0, 2, 3]),
    (["a", "T", "\n", " ", "b"], [1, 0, 0, 1, 1], ["a", "T\n", " b"], [0, 2, 4]),
    (["a", " ", "T", " b"], [1, 0, 0, 1], ["a", " T", " b"], [0, 2, 3]),
    (["a", "\n", "b", "T"], [1, 0, 1, 0], ["a", "\n", "b", "T"], [0, 1, 2, 3]),
    (["a", "T", "", ""], [1, 0, 1, 1], ["a", "T", ""], [0, 1, 3]),
    (["a", "b"], [1, 1], ["ab"], [1]),
]


@pytest.mark.parametrize(("tokens", "mask", "steps", "ends"), TURNS)
def test_turns_are_the_models_and_between_them_the_tools(
    tokens: list[str], mask: list[int], steps: list[str], ends: list[int]
) -> None:
    """To the token, whatever is text or space: no step is of both."""
    row = {"tokens": tokens, "loss_mask": mask}
    response = RowReader(splitter=splitter("turns")).response(row)
    assert (response.step_texts, response.step_ends) == (steps, ends)
    for last, end in pairwise((-1, *ends)):
        assert len(set(mask[last + 1 : end + 1])) == 1
    again = RowReader().response({**row, "step_ends": ends})
    assert (again.step_texts, again.step_ends) == (steps, ends)


@pytest.mark.parametrize(
    ("mask", "ends", "steps"),
    [
        ([1, 1, 0, 0, 0, 1], [1, 5], ["a ", "tool b"]),
        ([1, 1, 0, 0, 1, 1], [1, 4, 5], ["a ", "tool ", "b"]),
        ([0, 1, 0, 0, 1, 1], [1, 5], ["a ", "tool b"]),
    ],
)
def test_a_turns_end_without_text_is_read_as_the_row_has_it(
    mask: list[int], ends: list[int], steps: list[str]
) -> None:
    """An end of turn next to the tool's marker: by the text, either might be the last."""
    row = {"tokens": ["a ", "", "", "tool ", "", "b"], "loss_mask": mask, "step_ends": ends}
    response = RowReader().response(row)
    assert (response.step_texts, response.step_ends) == (steps, ends)


def test_steps_of_turns_can_be_split_anew() -> None:
    """By text, which tells their tokens again."""
    row = {"tokens": ["a", "T\n", " ", "\n", "b"], "loss_mask": [1, 0, 1, 1, 1]}
    turns = RowReader(splitter=splitter("turns")).response(row)
    assert turns.step_ends == [0, 1, 4]
    anew = splitter("blank-line").split(turns)
    assert (anew.step_texts, anew.step_ends) == (["aT\n \n", "b"], [3, 4])


def test_without_a_mask_all_is_one_turn() -> None:
    response = Response("?", "a\n\nb", ((0, 1), (1, 3), (3, 4)))
    assert splitter("turns").split(response).step_ends == [2]


def test_flags_that_are_not_one_a_token_are_refused() -> None:
    with pytest.raises(RolloutError) as refused:
        Response("?", "ab", ((0, 1), (1, 2)), own=(True,))
    assert str(refused.value) == "own: 1 flags, but the text has 2 tokens"


@pytest.mark.parametrize("pieces", [["a", "b c", ""], ["", "x"]])
def test_the_tokens_texts_make_the_text(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert Response("?", text, spans_of_pieces(pieces)).token_texts == pieces


def test_tokens_of_one_character_share_it_with_the_first() -> None:
    response = Response("?", "a🍎b", ((0, 1), (1, 2), (1, 2), (1, 2), (2, 3)))
    assert response.token_texts == ["a", "🍎", "", "", "b"]


def test_a_splitter_keeps_the_order_and_the_rest_of_a_response() -> None:
    first = Response.of_text("p", "a\n\nb", name="x:1", facts={"answer": 1})
    second = Response.of_text("q", "c", name="x:2")
    split = splitter("blank-line")([first, second])
    assert [(r.name, r.prompt, r.facts, r.step_ends) for r in split] == [
        ("x:1", "p", {"answer": 1}, [0, 1]),
        ("x:2", "q", {}, [0]),
    ]
    assert first.steps is None


@pytest.mark.parametrize("name", SPLITTERS.names())
@pytest.mark.parametrize(
    "made",
    [
        lambda n: "a\n" * (n // 2),
        lambda n: "a\n\n" * (n // 3),
        lambda n: "A. " * (n // 3),
        lambda n: "." * n,
        lambda n: "." + ")" * n,
        lambda n: "." + '"' * n + " ",
        lambda n: ". " + "(" * n,
        lambda n: "a." + " " * n + "b",
        lambda n: "a" + "\n " * (n // 2) + "b",
        lambda n: "a\n" + " \t" * (n // 2) + "b",
        lambda n: "</step" * (n // 6),
        lambda n: "</step>" * (n // 7),
    ],
    ids=lambda made: repr(made(24)[:8]),
)
def test_the_work_grows_no_faster_than_the_text(
    name: str, made: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = made(LONG)
    split = splitter(name, inside="extend").split(Response.of_text("?", text))
    assert "".join(split.step_texts) == text

    def split_text(size: int) -> None:
        splitter(name, inside="extend").split(Response.of_text("?", made(size)))

    assert_linear(monkeypatch, split_text, (120, 240), splitting, offsets, responses)


@pytest.mark.parametrize(
    ("name", "fields", "line"),
    [
        ("blankline", {}, "unknown splitter 'blankline', did you mean 'blank-line'?"),
        ("blank-line", {"insid": 1}, "insid: blank-line has no such field, did you mean 'inside'?"),
        ("newline", {"inside": "drop"}, "inside: expected one of refuse, extend, got 'drop'"),
        (
            "regex",
            {"pattern": "("},
            "pattern: expected a regular expression (missing ), unterminated subpattern at "
            "position 0), got '('",
        ),
        ("regex", {"pattern": b";"}, "pattern: expected a regular expression, got b';'"),
        (
            "regex",
            {"pattern": "a{9999999999}"},
            "pattern: expected a regular expression (the repetition number is too large), "
            "got 'a{9999999999}'",
        ),
        ("tags", {"tags": []}, "tags: expected names of tags, got []"),
        ("tags", {"tags": "step"}, "tags: expected names of tags, got 'step'"),
        ("tags", {"tags": ["<step>"]}, "tags: expected names of tags, got ['<step>']"),
        ("tags", {"tags": ["a", 5]}, "tags: expected names of tags, got ['a', 5]"),
    ],
)
def test_bad_settings_are_named(name: str, fields: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingError) as raised:
        splitter(name, **fields)
    assert str(raised.value) == line


def test_without_a_tokenizer_full_width_marks_end_words() -> None:
    text = "答案是七。3+4=8，对吗？ 因此结束"
    assert offsets.word_tokens(text) == ["答案是七。", "3+4=8，", "对吗？ ", "因此结束"]
    assert offsets.word_tokens("。。a") == ["。。", "a"]
    split = splitter("sentence").split(Response.of_text("?", text))
    assert split.step_texts == ["答案是七。", "3+4=8，对吗？ ", "因此结束"]
