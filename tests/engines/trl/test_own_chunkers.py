"""A chunker and a splitter of one's own in TRL's YAML, named like built-in ones."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from trl import TrlParser

import stepcredit as sc
from stepcredit.credit.stages import Chunks, is_whole, register_chunker
from stepcredit.credit.stages.chunker_registry import CHUNKERS
from stepcredit.engines.trl.config import StepCreditConfig
from stepcredit.errors import EngineError
from stepcredit.settings.fields import text
from stepcredit.signals import Response, Splitter, register_splitter
from stepcredit.signals.splitting import SPLITTERS

YAML = """\
output_dir: {folder}
use_cpu: true
bf16: false
report_to: none
method: pass
fields:
  chunks: {{every-n: {{n: {n}}}}}
splitter: after-mark
splitter_fields: {{mark: '|'}}
"""


def every_n(lead, n=2):
    """Every n scores are a chunk."""
    place = torch.arange(1, lead.slots.width + 1)
    return Chunks(lead.slots, (place % n == 0) & lead.slots.mask | lead.slots.end_slots())


@dataclass(frozen=True)
class AfterMark(Splitter):
    """A step ends with each mark."""

    mark: str = text(";", "what a step ends with")

    def ends(self, response):
        return [i + 1 for i, c in enumerate(response.text) if c == self.mark]


@pytest.fixture
def configured(monkeypatch, tmp_path):
    """A maker of configs from YAML; both rules are registered for one test."""
    for registry in (CHUNKERS, SPLITTERS):
        monkeypatch.setattr(registry, "_known", dict(registry._known))
    register_chunker("every-n", n=is_whole(at_least=1))(every_n)
    register_splitter("after-mark")(AfterMark)
    path = tmp_path / "recipe.yaml"

    def parse(n):
        path.write_text(YAML.format(folder=tmp_path / "out", n=n))
        return TrlParser(StepCreditConfig).parse_args_and_config(["--config", str(path)])[0]

    return parse


def test_yaml_names_them_with_their_options(configured):
    keywords = configured(3).credit()
    assert keywords["method"] == sc.PASS(chunks={"every-n": {"n": 3}})
    rollouts = sc.Rollouts([0, 0], process=sc.Tokens([[3.0, 1.0, 0.0, 2.0], [0.5, 1.5]]))
    assert keywords["method"].explain(rollouts).last.tolist() == [2, 3, 1]
    split = keywords["splitter"].split(Response.of_text("?", "a| b; c"))
    assert split.step_texts == ["a| ", "b; c"]


def test_an_option_refused_names_the_setting(configured):
    with pytest.raises(EngineError) as refused:
        configured(0)
    expected = "n of 'every-n': expected a whole number of at least 1, got 0"
    assert str(refused.value) == f"fields.chunks: {expected}"
