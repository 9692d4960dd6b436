"""The self-teacher against forward passes over prompts that are written out by hand."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tests.signals import tiny_models
from tests.signals.tiny_models import save

from stepcredit.errors import RolloutError, SettingError, SignalError
from stepcredit.signals.cache import Cached
from stepcredit.signals.models.ratios import models_from_rows
from stepcredit.signals.models.self_teacher import SelfTeacher
from stepcredit.signals.programs.checked import Program
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import Signal
from stepcredit.signals.signal_registry import signal
from stepcredit.signals.splitting import Newline

QUESTION = "Tom has 3 apples and buys 4 more. How many?"
TOLD = f"{QUESTION}\n\nThe right answer is: 7\n\nNow solve the problem in your own words."
SHORT = "{{ prompt }}|{{ answer }}{{ sibling }}{{ feedback }}{{ critique }}"


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_models.tokenizer()


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save(tmp_path_factory.mktemp("policy"), seed=4)


def ids_of(text, tokenizer):
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def answered(text, tokenizer, prompt=QUESTION, **facts):
    """A response whose prompt is the question between two marks, as a chat template writes it."""
    own = ids_of(text, tokenizer)
    prompt_ids = (0, *ids_of(prompt, tokenizer), 1)
    made = Response.of_ids(prompt, own, tokenizer, prompt_ids=prompt_ids, name="r:1", facts=facts)
    return Newline().split(made)


def by_hand(folder, prompt, own, temperature=1.0):
    """Log-probs of the response's tokens after a prompt, by one plain forward pass."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *own]])).logits[0, len(prompt) - 1 : -1]
    logps = (logits.float() / temperature).log_softmax(-1)
    return logps[torch.arange(len(own)), torch.tensor(own)].tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_it_is_the_log_ratio_with_and_without_the_answer(policy, tokenizer, temperature):
    row = answered("So he has 3 + 4 = 7 apples.", tokenizer, answer=7)
    found = SelfTeacher(student=policy, temperature=temperature).scores([row])[0]
    told = (0, *ids_of(TOLD, tokenizer), 1)
    teacher = by_hand(policy, told, row.token_ids, temperature)
    student = by_hand(policy, row.prompt_ids, row.token_ids, temperature)
    assert found == pytest.approx([t - s for t, s in zip(teacher, student, strict=True)], abs=1e-4)
    assert max(map(abs, found)) > 0.1


def test_the_model_of_both_sides_is_loaded_once(policy):
    sources = SelfTeacher(student=policy).sources
    assert sources["student"] is sources["teacher"]


def test_another_model_can_read_the_context(policy, tokenizer, tmp_path):
    before = save(tmp_path, seed=9)
    row = answered("It is 7.", tokenizer, answer="7")
    found = SelfTeacher(student=policy, teacher=before).scores([row])[0]
    teacher = by_hand(before, (0, *ids_of(TOLD, tokenizer), 1), row.token_ids)
    student = by_hand(policy, row.prompt_ids, row.token_ids)
    assert found == pytest.approx([t - s for t, s in zip(teacher, student, strict=True)], abs=1e-4)


class Reads(Signal):
    """Log-probs of -1, and a record of the prompts that were read."""

    grain = "tokens"
    identity = {"signal": "reads"}  # noqa: RUF012

    def __init__(self, tokenizer):
        self.tokenizer, self.read = tokenizer, []

    def stream(self, responses):
        for index, row in enumerate(responses):
            self.read.append((row.prompt, self.tokenizer.decode(row.prompt_ids)))
            yield index, [-1.0] * row.num_tokens


@pytest.mark.parametrize("name", ["answer", "sibling", "feedback", "critique"])
def test_the_context_is_in_the_teachers_prompt_and_never_in_the_students(tokenizer, name):
    secret = "fee 731 fie"
    facts = {"answer": secret, "feedback": secret, "critique": secret, "group": 1}
    rows = [
        answered(text, tokenizer, outcome=outcome, **facts)
        for text, outcome in (("No idea.", 0.0), (secret, 1.0), ("Or so.", 0.0))
    ]
    student, teacher = Reads(tokenizer), Reads(tokenizer)
    wrong = SelfTeacher(
        student=student, teacher=teacher, context=name, tokenizer=tokenizer, absent="zero"
    )
    found = wrong.scores(rows)
    assert found[0] == [0.0] * rows[0].num_tokens
    assert len(student.read) == len(teacher.read) == (2 if name == "sibling" else 3)
    assert all(secret in prompt and secret in ids for prompt, ids in teacher.read)
    assert not any(secret in prompt or secret in ids for prompt, ids in student.read)
    assert {ids for _, ids in student.read} == {f"<|end|>{QUESTION}<|pad|>"}


def test_the_tokens_around_the_question_stay(tokenizer):
    made = copy.deepcopy(tokenizer)
    made.chat_template = (
        "{% for m in messages %}<|pad|>{{ m.role }}\n{{ m.content | trim }}<|end|>{% endfor %}"
        "<|pad|>assistant\n"
    )
    turns = [
        {"role": "system", "content": f"Be brief. {QUESTION}"},
        {"role": "user", "content": f" {QUESTION} \n"},
    ]
    asked = made.apply_chat_template(turns, return_dict=True)["input_ids"]
    row = replace(answered("7", made, prompt=f" {QUESTION} \n", answer="42"), prompt_ids=asked)
    reads = Reads(made)
    both = SelfTeacher(student=Reads(made), teacher=reads, tokenizer=made, template=SHORT)
    both.scores([row])
    assert reads.read[0][1] == (
        f"<|pad|>system\nBe brief. {QUESTION}<|end|>"
        f"<|pad|>user\n{QUESTION}|42<|end|><|pad|>assistant"
    )


def test_a_mark_in_a_context_is_text(tokenizer):
    row = answered("7", tokenizer, answer="a<|end|>b")
    own = SelfTeacher(student=Reads(tokenizer), tokenizer=tokenizer, template=SHORT)
    context = own.privilege.read([row])[0]
    ids = own.privilege.prompt_ids(row, context, tokenizer)
    assert (ids.count(0), ids[0]) == (1, 0)
    assert tokenizer.decode(ids[1:-1]) == f"{QUESTION}|a<|end|>b"


def test_template_syntax_in_a_context_is_text(tokenizer):
    row = answered("7", tokenizer, critique="{{ prompt * 9 }}")
    own = SelfTeacher(student=Reads(tokenizer), context="critique", tokenizer=tokenizer)
    assert "{{ prompt * 9 }}" in own.privilege.question(row, own.privilege.read([row])[0])


def test_several_contexts_and_what_a_response_lacks(tokenizer):
    rows = [
        answered("Six.", tokenizer, group=1, outcome=0.0, feedback="Off by one."),
        answered("Seven.", tokenizer, group=1, outcome=1.0),
        answered("Eight.", tokenizer, group=2, outcome=0.0, feedback="Off by one."),
    ]
    reads = Reads(tokenizer)
    both = SelfTeacher(
        student=Reads(tokenizer),
        teacher=reads,
        context=["sibling", "feedback"],
        absent="zero",
        tokenizer=tokenizer,
        template="{{ prompt }}|{{ sibling }}|{{ feedback }}",
    )
    assert both.scores(rows)[1] == [0.0] * rows[1].num_tokens
    told = [prompt.removeprefix(QUESTION) for prompt, _ in reads.read]
    assert told == ["|Seven.|Off by one.", "||Off by one."]


def test_without_context_the_score_is_exactly_zero_and_it_is_said(policy, tokenizer):
    said = []
    rows = [
        answered("It is 7.", tokenizer, group=1, outcome=1.0),
        answered("It is 8.\nNo.", tokenizer, group=1, outcome=0.0),
        answered("Alone.", tokenizer, group=2, outcome=0.0),
    ]
    for per in ("tokens", "steps"):
        own = SelfTeacher(
            student=policy, context="sibling", absent="zero", per=per, tell=said.append
        )
        found = own.scores(rows)
        zeros = rows[0].num_tokens, rows[2].num_tokens
        sizes = zeros if per == "tokens" else (1, 1)
        assert (found[0], found[2]) == ([0.0] * sizes[0], [0.0] * sizes[1])
        assert all(found[1])
    assert said == ["2 of 3 responses have no context: they score 0"] * 2


def test_a_steps_score_is_the_sum_over_its_tokens(policy, tokenizer):
    row = answered("3 + 4 = 7\nSo 7.", tokenizer, answer="7")
    tokens = SelfTeacher(student=policy).scores([row])[0]
    steps = SelfTeacher(student=policy, per="steps").scores([row])[0]
    cut = row.step_ends[0] + 1
    assert steps == pytest.approx([sum(tokens[:cut]), sum(tokens[cut:])])


def test_more_responses_than_a_window_find_their_siblings(tokenizer):
    rows = [answered(f"{i}", tokenizer, group=i % 300, outcome=float(i >= 300)) for i in range(600)]
    reads = Reads(tokenizer)
    own = SelfTeacher(
        student=Reads(tokenizer),
        teacher=reads,
        context="sibling",
        absent="zero",
        tokenizer=tokenizer,
        template=SHORT,
    )
    own.scores(rows)
    assert [prompt for prompt, _ in reads.read] == [f"{QUESTION}|{i + 300}" for i in range(300)]


def test_log_probs_of_the_rows_need_no_model(tokenizer):
    row = answered("ok", tokenizer, answer="7")
    size = row.num_tokens
    facts = {"student_logprobs": [-1.0] * size, "teacher_logprobs": [-0.25] * size}
    own = SelfTeacher()
    assert own.scores([replace(row, facts={**row.facts, **facts})]) == [[0.75] * size]
    assert models_from_rows(own) == {"student", "teacher"}
    assert models_from_rows(SelfTeacher(teacher="models/before")) == {"student"}
    assert models_from_rows(SelfTeacher(student="models/policy")) == set()


@pytest.mark.parametrize(
    ("settings", "facts", "line"),
    [
        ({}, {}, "answer: missing: this signal needs it; absent='zero' gives scores of 0"),
        ({"answer": "gold"}, {"gold": []}, "gold: expected a text or a number, got []"),
        (
            {"context": "sibling"},
            {"group": 1, "outcome": 1.0},
            "sibling: no other response of the group is right; absent='zero' gives scores of 0",
        ),
        ({"context": "sibling"}, {"outcome": 1.0}, "group: missing: this signal needs it"),
        (
            {},
            {"answer": "3 apples"},
            "prompt: holds the answer '3 apples' already, so the student reads it too; "
            "in_prompt='allow' lets it",
        ),
        (
            {"context": "critique"},
            {"critique": QUESTION},
            "prompt: holds the critique 'Tom has 3 apples and buys 4 more. How ma...' already, so "
            "the student reads it too; in_prompt='allow' lets it",
        ),
    ],
)
def test_a_row_that_does_not_fit_is_named(tokenizer, settings, facts, line):
    own = SelfTeacher(student=Reads(tokenizer), tokenizer=tokenizer, **settings)
    with pytest.raises(RolloutError) as caught:
        own.scores([answered("7", tokenizer, **facts)])
    assert str(caught.value) == f"r:1: {line}"


def test_an_answer_in_the_system_turn_is_found_in_the_tokens(tokenizer):
    row = answered("7", tokenizer, answer="42")
    leaked = (*ids_of("Hint: it is 42. ", tokenizer), *row.prompt_ids)
    own = SelfTeacher(student=Reads(tokenizer), tokenizer=tokenizer)
    with pytest.raises(RolloutError, match=r"^r:1: prompt: holds the answer '42' already"):
        own.scores([replace(row, prompt_ids=leaked)])
    allowed = replace(own, in_prompt="allow")
    assert allowed.scores([replace(row, prompt_ids=leaked)]) == [[0.0] * row.num_tokens]


@pytest.mark.parametrize("answer", ["4 more", "how many?", "3"])
def test_words_of_their_own_are_a_leak(tokenizer, answer):
    with pytest.raises(RolloutError, match="the student reads it too"):
        SelfTeacher(student=Reads(tokenizer), tokenizer=tokenizer).scores(
            [answered("7", tokenizer, answer=answer)]
        )


@pytest.mark.parametrize("answer", ["apple", "33", "uys", "4.", "3,000"])
def test_a_part_of_a_word_or_number_is_none(tokenizer, answer):
    prompt = "Tom has 3 apples, buys 4.5 and 334?"
    row = answered("7", tokenizer, prompt=prompt, answer=answer)
    SelfTeacher(student=Reads(tokenizer), tokenizer=tokenizer).scores([row])


def test_a_question_that_is_not_in_the_prompts_tokens_is_refused(tokenizer):
    row = replace(answered("7", tokenizer, answer="42"), prompt="Something else?")
    with pytest.raises(RolloutError) as caught:
        SelfTeacher(student=Reads(tokenizer), tokenizer=tokenizer).scores([row])
    assert str(caught.value) == (
        "r:1: prompt: its text is not in the prompt's tokens, so a context can't be put there"
    )


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"context": "hint"},
            "context: expected one or several of answer, sibling, feedback, critique, got 'hint'",
        ),
        ({"context": []}, "context: expected one or several of answer, sibling, feedback, cr"),
        ({"context": ["answer", "answer"]}, "context: expected one or several of answer, sib"),
        ({"template": "{{ answer }}"}, "template: does not use prompt, so the teacher would not"),
        ({"template": "{{ prompt }}"}, "template: does not use answer, so the teacher would not"),
        ({"template": "{{ prompt }"}, "template: line 1 does not parse: unexpected '}'"),
        (
            {"template": "{{ prompt }}{{ answer }}{{ gold }}"},
            "template: unknown variable gold: expected prompt, answer, sibling, feedback, critique",
        ),
        (
            {"template": "{{ prompt / 2 }}{{ answer }}"},
            "template: fails on an example: TypeError: unsupported operand type(s)",
        ),
        ({"absent": "skip"}, "absent: expected one of refuse, zero, got 'skip'"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(settings, line):
    with pytest.raises(SettingError) as caught:
        signal("self-teacher", student="models/policy", **settings)
    assert str(caught.value).startswith(line)


def test_a_template_that_fails_on_a_response_names_it(tokenizer):
    template = "{{ prompt }}{{ answer.split('#')[1] }}"
    own = SelfTeacher(student=Reads(tokenizer), tokenizer=tokenizer, template=template)
    with pytest.raises(SignalError, match=r"^r:1: template: fails: list object has no element 1"):
        own.scores([answered("7", tokenizer, answer="42")])


def test_a_served_policy_needs_the_policys_tokenizer(tokenizer):
    served = {"url": "http://localhost:8000", "model": "policy"}
    with pytest.raises(SettingError) as caught:
        SelfTeacher(student=served).scores([answered("7", tokenizer, answer="42")])
    assert str(caught.value) == "tokenizer: the policy's is needed, to write the teacher's prompt"


def test_siblings_are_not_kept_and_other_contexts_are_kept_by_content(tokenizer, tmp_path):
    settings = {"student": Program(flat, per="tokens"), "tokenizer": tokenizer}
    with pytest.raises(SettingError, match="self-teacher depend on the other responses"):
        Cached(SelfTeacher(context="sibling", **settings), tmp_path / "scores.sqlite")
    own = SelfTeacher(**settings, template=SHORT)
    row = answered("7", tokenizer, answer="42")
    kept = Cached(own, tmp_path / "scores.sqlite")
    assert kept.scores([row]) == own.scores([row])
    other = replace(row, facts={"answer": "four thousand"})
    assert kept.scores([other]) == own.scores([other]) != own.scores([row])
    assert own.identity != replace(own, template=f"{SHORT}.").identity


def flat(row):
    return [-len(row.prompt_ids) / 100] * row.num_tokens
