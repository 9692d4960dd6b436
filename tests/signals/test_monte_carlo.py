"""Monte-Carlo values against exact ones: rigged samplers, and a model's own probabilities."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
from functools import partial
from math import sqrt

import pytest
import torch
from tests.signals.tiny_models import build, save, tokenizer

import stepcredit as sc
from stepcredit.errors import RolloutError, SettingError, SignalError
from stepcredit.signals.models.causal import CausalLM
from stepcredit.signals.models.keyed_sampling import KeyedNoise, complete
from stepcredit.signals.models.monte_carlo import Cost, MonteCarlo, log_cost
from stepcredit.signals.responses import Response
from stepcredit.signals.signal_registry import signal
from stepcredit.signals.splitting import Newline


def quiet(_):
    """Nobody hears of the cost."""


def right(texts, facts):
    """1 for a text that ends in its row's answer."""
    known = zip(texts, facts, strict=True)
    return [float(text.endswith(fact["answer"])) for text, fact in known]


CHANCES = {"": 0.3, "good\n": 0.8, "good\nbad\n": 0.1}


def rigged(prompt, prefix, n, seed):
    """Right with a known chance, which depends on the prefix."""
    draw = random.Random(seed)
    return ["yes" if draw.random() < CHANCES[prefix] else "no" for _ in range(n)]


def row_of(text="good\nbad\nyes", name="r:1", **facts):
    row = Response.of_text("?", text, name=name, facts={"answer": "yes", **facts})
    return Newline()([row])[0]


def test_values_converge_to_the_known_chances():
    n = 4000
    found = MonteCarlo(sampler=rigged, reward=right, n=n, tell=quiet).scores([row_of()])[0]
    for value, truth in zip(found, [0.8, 0.1], strict=False):
        assert abs(value - truth) < 4 * sqrt(truth * (1 - truth) / n)
    assert found[2] == 1.0


def test_advantages_are_the_rises_and_add_up_to_outcome_less_the_first_value():
    settings = {"sampler": rigged, "reward": right, "n": 4000, "tell": quiet}
    values = MonteCarlo(**settings).scores([row_of()])[0]
    found = MonteCarlo(**settings, score="advantage").scores([row_of()])[0]
    assert found[0] == pytest.approx(0.5, abs=0.05)
    assert found[1:] == pytest.approx([values[1] - values[0], 1.0 - values[1]])
    assert sum(found) == pytest.approx(1.0 - 0.3, abs=0.05)


def test_hard_estimation_is_the_best_completion():
    """With 8 draws at 0.1 some seeds find a right one and some do not; soft tells the share."""
    for seed in range(20):
        settings = {"sampler": rigged, "reward": right, "seed": seed, "tell": quiet}
        soft = MonteCarlo(**settings).scores([row_of()])[0]
        hard = MonteCarlo(**settings, estimate="hard").scores([row_of()])[0]
        assert hard == [float(value > 0) for value in soft]
        assert soft[0] in {count / 8 for count in range(9)}


def test_equal_prefixes_are_completed_once_and_the_cost_told_first():
    events = []

    def sampler(prompt, prefix, n, seed):
        events.append(prefix)
        return ["no"] * n

    rows = [row_of("good\nyes"), row_of("good\nno"), row_of("bad\nx\nno")] * 30
    one = MonteCarlo(
        sampler=sampler, reward=right, n=5, score="advantage", tell=events.append, workers=4
    )
    assert one.cost(rows) == Cost(prefixes=4, completions=20, max_tokens=None)
    found = one.scores(rows)
    assert events[0] == one.cost(rows)
    assert sorted(events[1:]) == ["", "bad\n", "bad\nx\n", "good\n"]
    assert found[:3] == [[0.0, 1.0], [0.0, 0.0], [0.0, 0.0, 0.0]]
    assert found == found[:3] * 30


def test_the_same_draws_come_again_for_the_same_seed_and_content():
    rows = [row_of(), row_of("good\nyes"), row_of("good\nbad\nno")]
    settings = {"sampler": rigged, "reward": right, "tell": quiet}
    whole = MonteCarlo(**settings).scores(rows)
    assert MonteCarlo(**settings).scores(rows[::-1]) == whole[::-1]
    assert [MonteCarlo(**settings).scores([row])[0] for row in rows] == whole
    others = [MonteCarlo(**settings, seed=seed).scores(rows) for seed in range(1, 6)]
    assert any(other != whole for other in others)


def test_the_log_tells_the_cost(caplog):
    with caplog.at_level(logging.WARNING):
        log_cost(Cost(30, 240, 122_880))
    told = "monte-carlo: 240 completions of 30 prefixes, at most 122,880 sampled tokens"
    assert caplog.messages == [told]


def test_it_feeds_the_estimators():
    rows = [row_of(), row_of("good\nno"), row_of("good\nbad\nno"), row_of("good\nyes")]
    process = MonteCarlo(sampler=rigged, reward=right, n=64, tell=quiet)(rows)
    rollouts = sc.Rollouts([0] * 4, process=process, outcome=[1.0, 0.0, 0.0, 1.0])
    for estimator in (sc.PASS(), sc.PURE()):
        packed = estimator(rollouts).packed()
        assert torch.isfinite(packed).all()
        assert packed.std() > 0.1


def test_noise_draws_from_the_softmax():
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0, -30.0])
    draws = 20_000
    noise = KeyedNoise(range(draws), 0.7, 1.0, torch.device("cpu"))
    tokens = noise(None, logits.expand(draws, 5)).argmax(1)
    shares = torch.bincount(tokens, minlength=5) / draws
    assert shares.tolist() == pytest.approx(torch.softmax(logits / 0.7, 0).tolist(), abs=0.012)


def test_a_nucleus_leaves_out_the_unlikely():
    logits = torch.tensor([3.0, 2.9, -1.0, -2.0])
    noise = KeyedNoise(range(2000), 1.0, 0.9, torch.device("cpu"))
    tokens = noise(None, logits.expand(2000, 4)).argmax(1)
    assert set(tokens.tolist()) == {0, 1}


def ids_row(text, name="r:1", **facts):
    known = tokenizer()
    prompt = tuple(known("Sum?\n")["input_ids"])
    row = Response.of_text("Sum?\n", text, known, name=name, prompt_ids=prompt, facts=facts)
    return Newline()([row])[0]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_models_value_is_the_probability_of_its_right_tokens(kind, tmp_path):
    """With one token to come the value is exact: the chance of tokens that hold a small letter."""
    known, n = tokenizer(), 800
    model, path = build(kind), save(tmp_path, kind)
    row = ids_row("Tom has 3\nSo he has 4\nend")

    def small(text):
        return any(character.islower() for character in text)

    def reward(texts, facts):
        return [float(small(text.split("\n")[-1])) for text in texts]

    one = MonteCarlo(model=path, reward=reward, n=n, max_new_tokens=1, temperature=4.0, tell=quiet)
    assert one.cost([row]) == Cost(2, 2 * n, 2 * n)
    found = one.scores([row])[0]
    for value, end in zip(found, row.step_ends[:-1], strict=False):
        ids = torch.tensor([[*row.prompt_ids, *row.token_ids[: end + 1]]])
        with torch.no_grad():
            chances = torch.softmax(model.double()(ids).logits[0, -1] / 4.0, 0)
        letters = [i for i in range(330) if small(known.decode([i], skip_special_tokens=True))]
        truth = chances[letters].sum().item()
        assert 0.02 < truth < 0.98
        assert abs(value - truth) < 4 * sqrt(truth * (1 - truth) / n)
    assert found[2] == 1.0


def test_completions_do_not_depend_on_the_batch():
    """Also beside longer rows, and whatever the model's own generation settings are."""
    model, prefixes = build("llama"), [[5, 6, 7], list(range(40, 70)), [9], [5, 6, 7]]
    settings = {"max_new_tokens": 12, "temperature": 1.0, "top_p": 0.95}
    causal, seeds = CausalLM(model, tokenizer()), [1, 2, 3, 4]
    whole = complete(causal, prefixes, seeds, max_tokens_per_batch=10_000, **settings)
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.top_k = 1
    alone = complete(causal, prefixes, seeds, max_tokens_per_batch=1, **settings)
    assert whole == alone
    assert whole[0] != whole[3]
    assert {len(row) for row in whole} == {12}


def test_a_completion_ends_at_the_end_of_text():
    """A model that always ends says nothing more, and the prefix alone is graded."""
    model, row = build("llama"), ids_row("So 3\nno", answer="So 3\n")
    with torch.no_grad():
        model.lm_head.weight.mul_(0.0)
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(330))
        model.lm_head.bias[tokenizer().eos_token_id] = 100.0
    settings = {"reward": right, "n": 2, "max_new_tokens": 9, "tell": quiet}
    one = MonteCarlo(model=model, tokenizer=tokenizer(), **settings)
    assert one.scores([row]) == [[1.0, 0.0]]


def test_text_is_read_by_the_models_own_tokenizer():
    rows = [ids_row("Tom has 3\nSo he has 4\nend", answer="e")]
    bare = [Newline()([Response.of_text("Sum?\n", rows[0].text, facts={"answer": "e"})])[0]]
    settings = {"model": build("llama"), "tokenizer": tokenizer(), "reward": right, "n": 4}
    one = MonteCarlo(**settings, max_new_tokens=3, tell=quiet).scores(rows)
    assert MonteCarlo(**settings, max_new_tokens=3, reads="text", tell=quiet).scores(bare) == one


def failing(prompt, prefix, n, seed):
    raise ConnectionError("no route to host")


@pytest.mark.parametrize(
    ("sampler", "line"),
    [
        (failing, "r:1: sampler: ConnectionError: no route to host"),
        (lambda *_: ["a"], "r:1: sampler: expected 8 completions, got 1 completions"),
        (lambda *_: "aaaaaaaa", "r:1: sampler: expected 8 completions, got 'aaaaaaaa'"),
        (lambda *_: [None] * 2, "r:1: sampler: expected 8 completions, got [None, None]"),
    ],
)
def test_a_sampler_that_fails_ends_the_run(sampler, line):
    with pytest.raises(SignalError) as caught:
        MonteCarlo(sampler=sampler, reward=right, tell=quiet).scores([row_of()])
    assert str(caught.value) == line


def unreadable(texts, facts):
    raise RolloutError("missing: the reward needs it", row=3, field="answer")


@pytest.mark.parametrize(
    ("reward", "error", "line"),
    [
        (unreadable, RolloutError, "r:1: answer: missing: the reward needs it"),
        (
            lambda texts, facts: 1 / 0,
            SignalError,
            "r:1: reward: ZeroDivisionError: division by zero",
        ),
        (lambda texts, facts: [1.0], SignalError, "r:1: reward: 1 rewards for 17 texts"),
        (
            lambda texts, facts: [float("nan")] * len(texts),
            SignalError,
            "r:1: reward: gave nan",
        ),
    ],
)
def test_a_reward_that_fails_ends_the_run(reward, error, line):
    with pytest.raises(error) as caught:
        MonteCarlo(sampler=rigged, reward=reward, tell=quiet).scores([row_of()])
    assert str(caught.value) == line


def test_a_row_over_the_context_is_refused_before_anything_is_sampled():
    told = []
    one = MonteCarlo(
        model=build("llama"),
        tokenizer=tokenizer(),
        reward=right,
        max_new_tokens=250,
        tell=told.append,
    )
    with pytest.raises(RolloutError) as caught:
        one.scores([ids_row("3\nno", answer="x")])
    size = 250 + sum(len(tokenizer()(text)["input_ids"]) for text in ("Sum?\n", "3\nno"))
    assert str(caught.value) == (
        f"r:1: token_ids: needs {size} positions, over the model's context of 256"
    )
    assert told == []


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"reward": right}, "model: expected a model or a sampler, and not both"),
        (
            {"reward": right, "model": "m", "sampler": rigged},
            "model: expected a model or a sampler, and not both",
        ),
        (
            {"reward": right, "sampler": rigged, "top_p": 1.5},
            "top_p: expected a number above 0 and at most 1, got 1.5",
        ),
        (
            {"sampler": rigged},
            "reward: expected a function, or MODULE:FUNCTION, got None",
        ),
        (
            {"sampler": rigged, "reward": "no_such_module:f"},
            "reward: no_such_module:f: ModuleNotFoundError: No module named 'no_such_module'",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, line):
    with pytest.raises(SettingError) as caught:
        MonteCarlo(**settings)
    assert str(caught.value) == line


class Graded:
    """A reward with a setting, whose method is the function."""

    def __init__(self, mark=1.0):
        self.mark = mark

    def grade(self, texts, facts):
        return [self.mark] * len(texts)

    def __call__(self, texts, facts):
        return self.grade(texts, facts)


def marking(mark):
    """A function that holds its setting."""
    return lambda texts, facts: [mark] * len(texts)


KINDS_OF_REWARD = [
    marking,
    Graded,
    lambda mark: Graded(mark).grade,
    lambda mark: partial(Graded.grade, mark),
    lambda mark: (lambda texts, facts: [0.0], lambda texts, facts: [1.0])[int(mark)],
]


@pytest.mark.parametrize("kind", KINDS_OF_REWARD)
def test_rewards_of_one_name_that_differ_are_told_apart(kind):
    def identity(mark):
        return MonteCarlo(sampler=rigged, reward=kind(mark)).identity

    assert identity(0.0) == identity(0.0) != identity(1.0)


def test_a_reward_has_the_same_identity_in_another_process(tmp_path, monkeypatch):
    """Also one with an inner function, and a set, whose order differs there."""
    (tmp_path / "graded.py").write_text(
        "def reward(texts, facts):\n"
        "    def good(text):\n"
        "        return text not in {'one', 'two', 'three', 'four', 'five'}\n"
        "    return [float(good(text)) for text in texts]\n"
    )
    code = "from stepcredit.signals.programs.functions import *; import graded; "
    code += "print(fingerprint_of_function(graded.reward))"
    run = [sys.executable, "-c", code]
    told = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    monkeypatch.syspath_prepend(tmp_path)
    one = MonteCarlo(sampler=rigged, reward="graded:reward")
    assert one.identity["reward"] == told.strip()


def test_a_reward_of_ours_may_be_named_by_its_class():
    named = MonteCarlo(sampler=rigged, reward="stepcredit.rewards.exact:Exact", tell=quiet)
    facts = {"answer": "good\nbad\nyes"}
    found = named.scores([row_of(**facts), row_of("good\nbad\nno", **facts)])
    assert [scores[2] for scores in found] == [1.0, 0.0]


def test_functions_may_be_named():
    named = MonteCarlo(sampler="random:choice", reward="math:fsum")
    assert (named.sampler, named.reward) == (random.choice, __import__("math").fsum)


def test_what_is_cached_depends_on_sampler_reward_seed_and_facts():
    base = {"sampler": rigged, "reward": right}
    one = signal("monte-carlo", **base).identity
    for other in ({"n": 4}, {"seed": 1}, {"estimate": "hard"}, {"reward": unreadable}):
        assert signal("monte-carlo", **{**base, **other}).identity != one
    assert signal("monte-carlo", **base, workers=3, tell=quiet).identity == one
    model = {"model": build("llama"), "reward": right}
    marks = [MonteCarlo(**model, tokenizer=tokenizer(n)).identity for n in (330, 300)]
    assert marks[0] != marks[1]
    contents = [MonteCarlo(**base).content(row_of(answer=answer)) for answer in ("a", "b")]
    assert contents[0] != contents[1]
