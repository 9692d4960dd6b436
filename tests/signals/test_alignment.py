"""Where steps end in a policy's tokens, whatever its tokens are, against a slow reference."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.signals.policies import POLICIES, byte_fallback, byte_level

from stepcredit.errors import RolloutError
from stepcredit.signals.offsets import spans_of_ids, spans_of_text, special_ids, word_tokens
from stepcredit.signals.responses import Response
from stepcredit.signals.splitting import EXTENDS, SPLITTERS, splitter, with_steps

PARTS = [
    "a",
    "So ",
    "3 + 4 = 7",
    ".",
    "!",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\r\n",
    "\r\n\r\n",
    "\t",
    "\u3000",
]
PARTS += [
    "é",
    "e\u0301",
    "🍎",
    "👨‍👩‍👧",
    "日本",
    "The",
    ".\n\nThe",
    "</step>",
    "<step>",
    "\u2028",
    "\ufffd",
]
texts = st.lists(st.sampled_from(PARTS), max_size=12).map("".join)
names = st.sampled_from(sorted(SPLITTERS.names()))
policies = st.sampled_from(sorted(POLICIES))
FAST = settings(max_examples=150, deadline=None)


@st.composite
def cut_anywhere(draw: st.DrawFn) -> Response:
    """A text in tokens of any length, some of them without text, some that share characters."""
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    spans = list(pairwise([0, *cuts, len(text)]))
    shared = draw(st.integers(0, 2))
    spans = [span for span in spans for _ in range(1 + (span[1] == span[0] + 1) * shared)]
    return Response("?", text, tuple(spans), name="row 7")


@st.composite
def written(draw: st.DrawFn) -> Response:
    """Ids that a policy sampled: no text it read, and not the ids its tokenizer would make."""
    tokenizer = POLICIES[draw(policies)]()
    if draw(st.booleans()):
        ids = draw(st.lists(st.integers(0, len(tokenizer) - 1), min_size=1, max_size=12))
    else:
        pieces = draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=12))
        ids = [id for p in pieces for id in tokenizer(p, add_special_tokens=False)["input_ids"]]
        ids = [*ids, *draw(st.sampled_from([[], [tokenizer.all_special_ids[0]]]))]
    return Response.of_ids("?", ids or [tokenizer.all_special_ids[0]], tokenizer, name="row 7")


responses = cut_anywhere() | written()


def by_letters(response: Response) -> Response:
    """The same text, a token a character: no step can end inside one."""
    spans = tuple((at, at + 1) for at in range(len(response.text))) or ((0, 0),)
    return Response("?", response.text, spans)


def holds_both(response: Response, token: int, end: int) -> bool:
    start, stop = response.spans[token]
    text = response.text
    before, after = text[start : max(start, min(end, stop))], text[max(start, end) : stop]
    return bool(before.strip()) and bool(after.strip())


def steps_of_tokens(response: Response) -> list[int]:
    """The step of each token, one by one, character by character."""
    assert response.steps is not None
    found: list[int] = []
    for start, stop in response.spans:
        ink = [at for at in range(start, stop) if not response.text[at].isspace()]
        first = ink[0] if ink else start
        step = next((s for s, end in enumerate(response.steps) if first < end), None)
        latest = found[-1] if found else 0
        step = latest if step is None or start == stop else step
        found.append(max(step, latest))
    return found


def check_split(split: Response) -> None:
    assert split.steps is not None
    assert "".join(split.step_texts) == split.text
    assert len(split.step_texts) == len(split.step_ends) == len(split.steps)
    owners = steps_of_tokens(split)
    assert set(owners[: split.step_ends[-1] + 1]) >= set(range(len(split.steps) - 1))
    expected = [
        max(at for at, owner in enumerate(owners) if owner == step)
        for step in range(len(split.steps) - 1)
    ]
    assert split.step_ends == [*expected, len(split.spans) - 1]
    assert all(left < right for left, right in pairwise([-1, *split.step_ends]))
    if len(split.steps) > 1:
        assert all(step.strip() for step in split.step_texts)
    for end in split.steps[:-1]:
        assert not split.text[end].isspace()
        assert not any(holds_both(split, token, end) for token in range(len(split.spans)))


@FAST
@given(responses, names.filter(lambda name: name != "newline-tokens"))
def test_steps_end_where_tokens_end_or_the_token_is_named(response: Response, name: str) -> None:
    wanted = splitter(name).split(by_letters(response)).steps[:-1]  # type: ignore[index]
    inside = [
        (step, token)
        for step, end in enumerate(wanted)
        for token in range(len(response.spans))
        if holds_both(response, token, end)
    ]
    if not inside:
        split = splitter(name).split(response)
        assert split.steps == (*wanted, len(response.text))
        check_split(split)
        return
    with pytest.raises(RolloutError) as raised:
        splitter(name).split(response)
    step = inside[0][0]
    lines = [
        f"row 7: steps: step {step} ends inside token {token} "
        f"({response.text[slice(*response.spans[token])]!r}); {EXTENDS} ends it with that token"
        for at, token in inside
        if at == step
    ]
    assert str(raised.value) in lines


@FAST
@given(responses, names)
def test_extended_steps_end_with_the_token(response: Response, name: str) -> None:
    split = splitter(name, inside="extend").split(response)
    check_split(split)
    if name == "newline-tokens":
        return
    ends, done = [], 0
    for end in splitter(name).split(by_letters(response)).steps[:-1]:  # type: ignore[index]
        grown = True
        while grown:
            over = [t for t in range(len(response.spans)) if holds_both(response, t, end)]
            grown = bool(over)
            end = max([end, *(response.spans[token][1] for token in over)])
        end = len(response.text) - len(response.text[end:].lstrip())
        if end > done and end < len(response.text):
            ends.append(end)
            done = end
    assert split.steps == (*ends, len(response.text))


@FAST
@given(texts, policies, names)
def test_tokens_a_tokenizer_makes_of_a_text(text: str, policy: str, name: str) -> None:
    tokenizer = POLICIES[policy]()
    if not tokenizer(text, add_special_tokens=False)["input_ids"]:
        with pytest.raises(RolloutError, match=r"\Arow 7: text: holds no token\Z"):
            Response.of_text("?", text, tokenizer, name="row 7")
        return
    response = Response.of_text("?", text, tokenizer, name="row 7")
    assert response.text == text
    check_split(splitter(name, inside="extend").split(response))


@settings(max_examples=400, deadline=None)
@example("byte-fallback", [3, 131, 259])
@given(policies, st.lists(st.integers(0, 10_000), max_size=16))
def test_ids_make_the_text_that_decoding_makes(policy: str, any_ids: list[int]) -> None:
    tokenizer = POLICIES[policy]()
    ids = [id % len(tokenizer) for id in any_ids]
    text, spans = spans_of_ids(ids, tokenizer)
    assert text == tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=True)
    assert len(spans) == len(ids)
    hidden = special_ids(tokenizer)
    covered = [False] * len(text)
    for id, (start, stop) in zip(ids, spans, strict=True):
        assert 0 <= start <= stop <= len(text)
        assert id not in hidden or start == stop
        covered[start:stop] = [True] * (stop - start)
    assert all(covered)
    shown = [span for id, span in zip(ids, spans, strict=True) if id not in hidden]
    assert all(left[0] <= right[0] and left[1] <= right[1] for left, right in pairwise(shown))


@pytest.mark.parametrize("policy", ["byte-level", "words-apart"])
@FAST
@given(text=texts)
def test_ids_give_the_spans_that_the_text_gives(policy: str, text: str) -> None:
    """Where no character is cut into several tokens, both ways agree."""
    tokenizer = POLICIES[policy]()
    ids, spans = spans_of_text(text, tokenizer)
    made, decoded = spans_of_ids(ids, tokenizer)
    assert made == text
    if text.isascii():
        assert decoded == spans
    for (start, stop), (left, right) in zip(spans, decoded, strict=True):
        assert left <= start
        assert stop <= right


@pytest.mark.parametrize("policy", POLICIES)
def test_an_emoji_in_bytes_belongs_to_one_step(policy: str) -> None:
    if policy == "word-pieces":
        pytest.skip("has no bytes")
    response = Response.of_text("?", "Ok.\n\n👾\n\n👾.", POLICIES[policy]())
    split = splitter("blank-line").split(response)
    assert split.step_texts == ["Ok.\n\n", "👾\n\n", "👾."]
    check_split(split)


def test_special_tokens_have_no_text_and_stay_with_the_step_before() -> None:
    tokenizer = byte_level()
    end, tool = tokenizer.convert_tokens_to_ids(["<|end|>", "<|tool|>"])

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    first, second = ids("a\n\n"), ids("b")
    response = Response.of_ids("?", [tool, *first, tool, *second, end, end], tokenizer)
    split = splitter("blank-line").split(response)
    assert split.text == "a\n\nb"
    assert split.step_texts == ["a\n\n", "b"]
    assert split.step_ends == [len(first) + 1, len(response.spans) - 1]
    check_split(split)
    nothing = splitter("blank-line").split(Response.of_ids("?", [end], tokenizer))
    assert (nothing.text, nothing.steps, nothing.step_ends) == ("", (0,), [0])
    assert nothing.is_empty


def test_a_policy_cut_off_inside_a_character() -> None:
    tokenizer = byte_level()
    ids = tokenizer("So\n\n🍎", add_special_tokens=False)["input_ids"]
    whole = tokenizer.backend_tokenizer.decode(ids)
    while tokenizer.backend_tokenizer.decode(ids) == whole:
        ids = ids[:-1]
    split = splitter("newline").split(Response.of_ids("?", ids, tokenizer))
    assert split.text == tokenizer.backend_tokenizer.decode(ids)
    check_split(split)


def test_a_merged_token_of_two_steps_is_refused_or_extended() -> None:
    response = Response("?", "a.\n\nThe b.\n\nc", ((0, 1), (1, 7), (7, 12), (12, 13)), name="in:3")
    with pytest.raises(RolloutError) as raised:
        splitter("blank-line").split(response)
    assert str(raised.value) == (
        f"in:3: steps: step 0 ends inside token 1 ('.\\n\\nThe'); {EXTENDS} ends it with that token"
    )
    extended = splitter("blank-line", inside="extend").split(response)
    assert extended.step_texts == ["a.\n\nThe ", "b.\n\n", "c"]
    assert extended.step_ends == [1, 2, 3]


def test_extending_goes_on_through_tokens_that_share_a_character() -> None:
    """Bytes of one emoji in two tokens, each with a letter beside: no step ends between them."""
    response = Response("?", "a;🍎bc", ((0, 3), (2, 4), (4, 5)))
    split = splitter("regex", pattern=";", inside="extend").split(response)
    assert (split.step_texts, split.step_ends) == (["a;🍎b", "c"], [1, 2])


def test_space_tokens_belong_where_they_start() -> None:
    spans = ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5))
    response = Response("?", "a;\n b", spans)
    assert splitter("regex", pattern=";").split(response).step_ends == [3, 4]
    assert splitter("regex", pattern=";").split(response).step_texts == ["a;\n ", "b"]


@given(texts)
@FAST
def test_pieces_join_to_the_text(text: str) -> None:
    pieces = word_tokens(text)
    assert "".join(pieces) == text
    assert len(pieces) == max(1, len(text.split()) + (text[:1].isspace() and bool(text.strip())))
    assert all(len(piece.split()) <= 1 for piece in pieces)


def test_a_step_that_no_token_makes_is_refused() -> None:
    response = Response("?", "a\n\nb\n\nc", ((0, 1), (6, 7)), name="in:1")
    with pytest.raises(RolloutError) as raised:
        splitter("blank-line").split(response)
    assert str(raised.value) == "in:1: steps: step 1 holds no token"


@pytest.mark.parametrize(
    ("ids", "line"),
    [
        ([5, 320], "token_ids: token 1 is 320, which the tokenizer does not have"),
        ([-1], "token_ids: token 0 is -1, which the tokenizer does not have"),
    ],
)
def test_ids_the_tokenizer_does_not_have(ids: list[int], line: str) -> None:
    assert len(byte_fallback()) == 320
    with pytest.raises(RolloutError) as raised:
        spans_of_ids(ids, byte_fallback())
    assert str(raised.value) == line


def test_what_a_policy_samples_beyond_its_tokenizer_has_no_text() -> None:
    """Vocabularies are padded: a policy may write an id that no tokenizer reads."""
    tokenizer = byte_fallback()
    ids = tokenizer("1 + 2 = 3.", add_special_tokens=False).input_ids
    whole = Response.of_ids("?", ids, tokenizer)
    padded = Response.of_ids("?", [320, *ids[:2], 999, *ids[2:], 321], tokenizer)
    spans = list(whole.spans)
    here = (spans[1][1], spans[1][1])
    assert padded.text == whole.text
    assert padded.spans == ((0, 0), *spans[:2], here, *spans[2:], (len(whole.text),) * 2)
    with pytest.raises(RolloutError):
        Response.of_ids("?", [-1], tokenizer)


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    for make, what in (
        (Response.of_text, "keeps no character offsets"),
        (Response.of_ids, "can't decode step by step"),
    ):
        with pytest.raises(RolloutError) as raised:
            make("?", "a", Slow())  # type: ignore[operator]
        assert str(raised.value) == f"tokenizer: Slow {what}: a fast one is needed"


def test_ids_and_spans_must_agree() -> None:
    with pytest.raises(RolloutError) as raised:
        Response("?", "a b", ((0, 2), (2, 3)), name="in:2", token_ids=(1,))
    assert str(raised.value) == "in:2: token_ids: 1 ids, but the text has 2 tokens"


def test_steps_are_asked_for_before_they_are_cut() -> None:
    response = Response.of_text("?", "a b", name="in:2")
    for name in ("step_texts", "step_ends"):
        with pytest.raises(RolloutError) as raised:
            getattr(response, name)
        assert str(raised.value) == "in:2: steps: not split into steps"


def test_ends_at_space_alone_end_nothing() -> None:
    response = Response.of_text("?", "  a  b  ")
    assert with_steps(response, [0, 1, 2, 5, 5, 8]).step_texts == ["  a  ", "b  "]
