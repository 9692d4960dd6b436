"""A user's own methods, chunkers and splitters work in TRL as the library's do."""

from __future__ import annotations

import pytest
import torch
from tests.engines.trl.conftest import TINY
from trl import TrlParser

from stepcredit.engines.trl.config import StepCreditConfig
from stepcredit.errors import EngineError
from stepcredit.lab.model import build_model
from stepcredit.signals.models.teacher_forcing import LocalLogProbs
from stepcredit.signals.programs.checked import Program

pytestmark = pytest.mark.usefixtures("own_methods")
YAML = """\
output_dir: {out}
max_steps: 2
per_device_train_batch_size: 4
steps_per_generation: 2
num_generations: 4
max_completion_length: 12
use_cpu: true
bf16: false
gradient_checkpointing: false
report_to: none
save_strategy: "no"
disable_tqdm: true
"""


LENGTHS = Program(lambda response: [float(len(text)) for text in response.step_texts])


@pytest.fixture
def trained(tmp_path, make_trainer):
    """A maker of trainers that have trained by a YAML file, and of no keyword but `given`."""

    def make(text, **given):
        path = tmp_path / "recipe.yaml"
        path.write_text(YAML.format(out=tmp_path / "out") + text)
        config = TrlParser(StepCreditConfig).parse_args_and_config(["--config", str(path)])[0]
        names = ("method", "process_signal", "outcome_reward", "format_reward")
        trainer = make_trainer(config=config, **{**dict.fromkeys(names), **given})
        trainer.train()
        return trainer

    return make


def test_a_method_of_ones_own_made_of_log_probs(trained, tmp_path, task):
    torch.manual_seed(5)
    teacher = build_model(task.tokenizer, TINY).eval()
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.normal_()
    logprobs = {"teacher": LocalLogProbs(teacher, tokenizer=task.tokenizer)}
    ours, own = (trained(f"method: {name}\n", logprobs=logprobs) for name in ("opd", "log-ratio"))
    assert own.credited.completion_ids == ours.credited.completion_ids
    assert sorted(own.credited.rollouts.logprobs) == ["student", "teacher"]
    assert ours.credited.advantages.ne(0).any()
    assert torch.equal(own.credited.advantages, 2 * ours.credited.advantages)
    own.create_model_card(model_name="mine")
    assert "a method introduced in [arXiv 0000.00001]" in (tmp_path / "out/README.md").read_text()


def test_a_method_of_ones_own_names_the_log_probs_it_lacks(trained):
    line = r"^logprobs.teacher: log-ratio is made of the teacher's log-probs"
    with pytest.raises(EngineError, match=line):
        trained("method: log-ratio\n")


def test_a_method_of_ones_own_with_its_own_weights(trained):
    own = trained("method: blend\n", process_signal=LENGTHS)
    weights = "{process: 2.0, outcome: 0.5}"
    text = f"method: pass\nfields: {{weights: {weights}, gate: false}}\n"
    ours = trained(text, process_signal=LENGTHS)
    assert ours.credited.advantages.ne(0).any()
    assert torch.equal(own.credited.advantages, ours.credited.advantages)
    assert "stepcredit/share/process" in own.state.log_history[0]
    line = r"^fields.weights: the stream 'rule' has no weight"
    with pytest.raises(EngineError, match=line):
        trained("method: blend\nprocess_signal: {rule: arithmetic}\n")


def test_ones_own_chunker_and_splitter_are_named_in_yaml(trained):
    own, ours = (
        trained(
            f"fields: {{chunks: {chunks}, gate: false}}\n"
            "splitter: after-mark\nsplitter_fields: {mark: '0123456789'}\n",
            process_signal=LENGTHS,
        )
        for chunks in ("{every-n: {n: 3}}", "{windows: {size: 3}}")
    )
    digits = [
        sum(letter.isdigit() for letter in response.text.rstrip())
        for response in own.credited.responses
    ]
    assert sum(digits) > 4
    counts = own.credited.rollouts.streams["process"].counts.tolist()
    assert all(count >= max(1, found) for count, found in zip(counts, digits, strict=True))
    assert ours.credited.advantages.ne(0).any()
    assert torch.equal(own.credited.advantages, ours.credited.advantages)
