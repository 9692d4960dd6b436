"""Checkpoints as they are published, and what tells them apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.prm import checkpoints, vocabularies
from tests.prm.cases import BY_NAME, CASES, Case, responses
from transformers import AutoModelForTokenClassification, Qwen2Config, Qwen2ForCausalLM
from transformers.integrations import is_fsdp_enabled

from stepcredit.errors import RolloutError, SettingError, SignalError
from stepcredit.prm import LocalPRM, QwenMathPRM
from stepcredit.signals.cache import Cached
from stepcredit.signals.responses import Response

QWEN, SKYWORK = BY_NAME["qwen2.5-math-prm"], BY_NAME["skywork"]

IN_SHARDS = [case for case in CASES if case is not SKYWORK]
"""Skywork's wrapper, as written here, saves one file."""


def refused(case: Case, folder: Path, **settings: object) -> str:
    """The error of a checkpoint that does not load, without the folder in front."""
    with pytest.raises(SignalError) as caught:
        case.signal(folder, **settings).scores(responses())
    line = str(caught.value)
    assert line.startswith(f"{folder}: ")
    return line.removeprefix(f"{folder}: ")


@pytest.mark.parametrize("case", IN_SHARDS, ids=lambda case: case.protocol)
def test_weights_in_shards(case: Case, tmp_path: Path) -> None:
    """As large models are published; the heads may lie in any of them."""
    one = case.signal(case.checkpoint(tmp_path / "one"))
    checkpoints.save(case.model(), case.tokenizer(), tmp_path / "shards", shards=True)
    assert (tmp_path / "shards" / "model.safetensors.index.json").exists()
    assert case.signal(tmp_path / "shards").scores(responses()) == one.scores(responses())


def test_weights_in_pytorch_files(tmp_path: Path) -> None:
    """As older models are published."""
    folder = SKYWORK.checkpoint(tmp_path)
    want = SKYWORK.signal(folder).scores(responses())
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert SKYWORK.signal(folder).scores(responses()) == want


def test_remote_code_is_never_run(tmp_path: Path) -> None:
    """A checkpoint that names code of its own loads without it."""
    folder = QWEN.checkpoint(tmp_path)
    assert "auto_map" in json.loads((folder / "config.json").read_text())
    (folder / "modeling_qwen2_rm.py").write_text("raise SystemExit('was run')")
    (folder / "configuration.py").write_text("raise SystemExit('was run')")
    assert len(QWEN.signal(folder).scores(responses())) == 6
    checkpoints.edit_config(folder, model_type="known_to_its_own_code_alone")
    line = refused(QWEN, folder)
    assert line.startswith("does not load: ")
    assert "contains custom code" in line
    assert "\n" not in line


@pytest.fixture
def second_rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As accelerate launches FSDP that spares memory: a process that is not its node's first."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    monkeypatch.setenv("LOCAL_RANK", "1")
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("second_rank")
def test_weights_are_loaded_on_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FSDP fills the policy's weights later, and no reward model's."""
    case, spared = BY_NAME["pure"], []
    loads = AutoModelForTokenClassification.from_pretrained

    def noted(*given: Any, **settings: Any) -> Any:
        spared.append(is_fsdp_enabled())
        return loads(*given, **settings)

    monkeypatch.setattr(AutoModelForTokenClassification, "from_pretrained", noted)
    scores = case.signal(case.checkpoint(tmp_path)).scores(responses())
    assert spared == [False]
    assert is_fsdp_enabled()
    given = LocalPRM(case.model(), case.protocol, tokenizer=case.tokenizer(), device="cpu")
    assert given.scores(responses()) == [pytest.approx(row, abs=1e-5) for row in scores]


def test_a_checkpoint_without_its_head(tmp_path: Path) -> None:
    """The missing weights are named; nothing is made up in their place."""
    tokenizer = vocabularies.qwen(bos="<|endoftext|>")
    config = Qwen2Config(**checkpoints.SIZES, vocab_size=len(tokenizer))
    checkpoints.save(Qwen2ForCausalLM(config), tokenizer, tmp_path)
    two_layer = "score.0.bias, score.0.weight, score.2.bias, score.2.weight"
    assert refused(QWEN, tmp_path) == f"lacks the weights {two_layer}"
    value = "v_head.summary.bias, v_head.summary.weight"
    assert refused(SKYWORK, tmp_path) == f"lacks the weights {value}"
    assert refused(BY_NAME["pure"], tmp_path) == "lacks the weights score.bias, score.weight"


def test_a_checkpoint_without_part_of_its_body_or_head(tmp_path: Path) -> None:
    """Likewise."""
    folder = QWEN.checkpoint(tmp_path)

    def without(part: str) -> None:
        checkpoints.edit_weights(
            folder, lambda old: {name: old[name] for name in old if part not in name}
        )

    without("score.2.bias")
    assert refused(QWEN, folder) == "lacks the weights score.2.bias"
    without("layers.1.mlp")
    body = [f"layers.1.mlp.{part}_proj.weight" for part in ("down", "gate", "up")]
    assert refused(QWEN, folder) == f"lacks the weights {', '.join(body)}"
    without("layers.1.")
    assert refused(QWEN, folder) == (
        "lacks the weights layers.1.input_layernorm.weight, layers.1.mlp.down_proj.weight, "
        "layers.1.mlp.gate_proj.weight, layers.1.mlp.up_proj.weight and 8 more"
    )


def test_a_head_of_another_shape(tmp_path: Path) -> None:
    """Three classes are not two."""
    folder = QWEN.checkpoint(tmp_path)
    checkpoints.edit_weights(folder, lambda old: {**old, "score.2.weight": torch.zeros(3, 32)})
    assert refused(QWEN, folder) == "score.2.weight is [3, 32], where [2, 32] is expected"
    pure = BY_NAME["pure"].checkpoint(tmp_path / "pure")
    checkpoints.edit_config(pure, num_labels=3, id2label={"0": "a", "1": "b", "2": "c"})
    checkpoints.edit_weights(
        pure, lambda old: {**old, "score.weight": torch.zeros(3, 32), "score.bias": torch.zeros(3)}
    )
    assert refused(BY_NAME["pure"], pure) == "pure needs two classes, not 3"


def test_a_language_model_that_rescales_its_logits(tmp_path: Path) -> None:
    """Two rows of its output layer would not be its logits."""
    folder = BY_NAME["rlhflow"].checkpoint(tmp_path)
    checkpoints.edit_config(folder, final_logit_softcapping=30.0)
    found = refused(BY_NAME["rlhflow"], folder)
    assert found == "rlhflow can't read a model with final_logit_softcapping"


def test_a_checkpoint_without_weights(tmp_path: Path) -> None:
    """What transformers says of it, in one line."""
    folder = QWEN.checkpoint(tmp_path)
    (folder / "model.safetensors").unlink()
    line = refused(QWEN, folder)
    assert line.startswith("does not load: ")
    assert "\n" not in line


def test_no_checkpoint() -> None:
    """Neither a folder nor a name that is known here."""
    signal = LocalPRM("/no/such/folder", "pure")
    with pytest.raises(SignalError) as caught:
        signal.scores(responses())
    line = str(caught.value)
    assert line.startswith("/no/such/folder: does not load: ")
    assert "\n" not in line


def test_no_such_device(tmp_path: Path) -> None:
    """Torch's own reason, under the setting."""
    folder = QWEN.checkpoint(tmp_path)
    with pytest.raises(SettingError) as caught:
        LocalPRM(str(folder), "qwen2.5-math-prm", device="abacus").scores(responses())
    line = str(caught.value)
    assert line.startswith("device: 'abacus': Expected one of cpu, cuda, ")
    assert "\n" not in line


class Hasty(QwenMathPRM):
    """A protocol of one's own, made from one of ours."""


def test_an_empty_response_scored_before_is_refused_again(tmp_path: Path) -> None:
    """A cache does not let through what the signal refuses."""
    folder, path = QWEN.checkpoint(tmp_path / "prm"), tmp_path / "scores.sqlite"
    empty = replace(Response.of_text("How many?", "\n"), steps=(1,))
    Cached(QWEN.signal(folder, empty="score"), path).scores([empty])
    with pytest.raises(RolloutError, match="is empty"):
        Cached(QWEN.signal(folder), path).scores([empty])


@pytest.mark.parametrize("broken", [b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_weights_that_are_none(broken: bytes, tmp_path: Path) -> None:
    """A download that broke off, or a pointer to one."""
    folder = QWEN.checkpoint(tmp_path)
    (folder / "model.safetensors").write_bytes(broken)
    line = refused(QWEN, folder)
    assert line.startswith("does not load: ")
    assert "\n" not in line


def test_identities_differ_where_scores_may(tmp_path: Path) -> None:
    """By weights, tokenizer, protocol and its fields, type, and what is refused; not by how the
    work is packed.
    """
    folder = str(QWEN.checkpoint(tmp_path / "a"))
    other = str(checkpoints.save(QWEN.model(hidden_size=16), QWEN.tokenizer(), tmp_path / "b"))

    def identity(
        model: object = folder, protocol: object = "qwen2.5-math-prm", **rest: object
    ) -> str:
        return json.dumps(LocalPRM(model, protocol, **rest).identity, sort_keys=True)  # type: ignore[arg-type]

    same = identity()
    assert same == identity(max_tokens_per_batch=7, device="cpu")
    changed = [
        identity(other),
        identity(protocol="reasonflux"),
        identity(protocol_settings={"system": "Be kind."}),
        identity(dtype="bfloat16"),
        identity(empty="score"),
        identity(protocol=Hasty()),
        identity(tokenizer=other),
        identity(tokenizer=vocabularies.qwen()),
        identity(tokenizer=vocabularies.llama()),
    ]
    assert len({same, *changed}) == 10
    checkpoints.edit_weights(Path(folder), lambda old: {**old, "score.2.bias": torch.ones(2)})
    assert identity() != same


def test_identities_of_loaded_models() -> None:
    """By their weights, bit for bit, as they are now."""
    case = BY_NAME["pure"]
    model, tokenizer = case.model(), case.tokenizer()
    prm = LocalPRM(model, "pure", tokenizer=tokenizer)
    first = prm.identity
    assert first == LocalPRM(case.model(), "pure", tokenizer=tokenizer).identity
    with torch.no_grad():
        model.score.bias[0] += 1e-6
    assert first != prm.identity
    half = LocalPRM(case.model().bfloat16(), "pure", tokenizer=tokenizer).identity
    assert half != first
