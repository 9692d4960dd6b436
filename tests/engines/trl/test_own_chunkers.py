"""A chunker and a splitter of one's own in TRL's YAML, named like built-in ones."""

from __future__ import annotations

import pytest
from trl import TrlParser

import stepcredit as sc
from stepcredit.engines.trl.config import StepCreditConfig
from stepcredit.errors import EngineError
from stepcredit.signals import Response

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


@pytest.fixture
def configured(own_methods, tmp_path):
    """A maker of configs from YAML."""
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
