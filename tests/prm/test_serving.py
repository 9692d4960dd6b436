"""The vLLM command of each known model, and the check of a running server."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")  # the tiny models' module imports its neighbours

from tests.prm.stand_in_vllm import StandIn, served

from stepcredit.errors import SettingError, SignalError
from stepcredit.launch.tiny_models import save_language_model, save_reward_model
from stepcredit.prm.protocol import PROTOCOLS
from stepcredit.prm.served_prm import ServedPRM
from stepcredit.prm.serving.served_models import KNOWN_MODELS, model_to_serve
from stepcredit.prm.serving.server_check import CheckSettings, check_server, has_weights
from stepcredit.prm.serving.vllm_command import VLLMCommand, VLLMSettings
from stepcredit.signals.served.llm_judge import Judge

SERVED = [each for each in KNOWN_MODELS if each.refusal is None]
LOCAL = CheckSettings(local=True)


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(save_reward_model(tmp_path_factory.mktemp("prm"), "token-classifier", {}))


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(save_language_model(tmp_path_factory.mktemp("teacher")))


def command(model: str, **settings: Any) -> VLLMCommand:
    roles = {name: settings.pop(name) for name in ("role", "protocol") if name in settings}
    return VLLMCommand(model_to_serve(model, **roles), VLLMSettings(**settings))


def test_the_command_of_qwens_reward_model() -> None:
    found = command("Qwen/Qwen2.5-Math-PRM-7B").arguments
    assert found == [
        *("vllm", "serve", "Qwen/Qwen2.5-Math-PRM-7B", "--runner", "pooling"),
        "--pooler-config",
        '{"task":"token_classify","pooling_type":"STEP","step_tag_id":151651}',
        *("--max-model-len", "4096", "--dtype", "bfloat16"),
        *("--gpu-memory-utilization", "0.9", "--port", "8000"),
    ]


def test_the_command_of_a_teacher() -> None:
    found = command("Qwen/Qwen2.5-32B-Instruct", max_model_len=6145, data_parallel=2)
    assert found.arguments == [
        *("vllm", "serve", "Qwen/Qwen2.5-32B-Instruct"),
        *("--max-num-batched-tokens", "2048", "--max-logprobs", "20"),
        *("--max-model-len", "6145", "--dtype", "bfloat16", "--gpu-memory-utilization", "0.85"),
        *("--tensor-parallel-size", "4", "--data-parallel-size", "2", "--port", "8000"),
    ]


@pytest.mark.parametrize("model", SERVED, ids=lambda each: each.name)
def test_the_printed_text_is_the_command_and_fits_its_signal(model: Any) -> None:
    found = VLLMCommand(model, VLLMSettings(port=8123))
    assert shlex.split(found.text.replace("\\\n", "")) == found.arguments
    assert all(len(line) <= 100 for line in found.text.splitlines())
    fields = found.signal_fields()
    assert fields["url"] == "http://localhost:8123"
    if model.role == "prm":
        assert ServedPRM(**fields).pooling == model.pooling
        assert ('"STEP"' in found.text) == (model.pooling == "step")


def test_a_judge_may_ask_for_as_many_logprobs_as_it_does() -> None:
    found = command("Qwen/Qwen3-8B").arguments
    asked = Judge(url="http://a", model="m").top_logprobs
    assert int(found[found.index("--max-logprobs") + 1]) >= asked


def table_row(model: Any) -> str:
    """A model's row of the table in the docs."""
    pooler = f"STEP at {model.step_tag}" if model.step_tag else "ALL"
    tokens = f"{model.context:,}" if model.context else "its config's"
    protocol = f"`{model.protocol}`" if model.protocol else ""
    cells = [f"`{model.name}`", model.role, protocol]
    if model.refusal:
        cells += ["not served", "", ""]
    else:
        cells += [pooler if model.role == "prm" else "", tokens, str(model.gpus)]
    return re.sub(" +", " ", f"| {' | '.join(cells)} |")


def test_the_table_of_the_docs_is_the_code_s() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/serving.md").read_text()
    table = page.partition("## Known models\n\n")[2].partition("\n\n")[0].splitlines()
    assert table[2:] == [table_row(model) for model in KNOWN_MODELS]


def test_every_protocol_has_a_known_model_or_is_any_classifier() -> None:
    known = {each.protocol for each in KNOWN_MODELS if each.role == "prm"}
    assert known == set(PROTOCOLS.names()) - {"token-classifier"}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("Skywork/Skywork-o1-Open-PRM-Qwen-2.5-7B",), "skywork reads a value head, which vLLM "),
        (("own", None, "rlhflow"), "own: rlhflow reads the logits of two words of the vocabulary"),
        (("own",), "own: is not among the known models: say --as prm, teacher or judge"),
        (("own", "prm"), "protocol: expected one of "),
        (("own", "reader"), "as: expected one of prm, teacher, judge, got 'reader'"),
        (("own", "teacher", "pure"), "protocol: is for reward models alone"),
        (("own", None, "pur"), "protocol: unknown protocol 'pur', did you mean 'pure'?"),
    ],
)
def test_what_cannot_be_served_is_one_line(given: tuple[Any, ...], line: str) -> None:
    with pytest.raises(SettingError) as caught:
        model_to_serve(*given)
    assert line in str(caught.value)


def lines(found: VLLMCommand, url: str, settings: CheckSettings = LOCAL) -> list[str]:
    return list(check_server(found, url, settings))


def test_a_server_of_the_same_weights_passes(classifier: Path) -> None:
    found = command(str(classifier), protocol="token-classifier")
    with served(StandIn(classifier, (str(classifier),))) as url:
        one, two, three = lines(found, url)
    assert one == f"serves {classifier}"
    assert re.fullmatch(r"3 steps, 3 scores: [\d., ]+ \(step 2 is wrong\)", two)
    assert re.match(r"as the model in this process: [\d.e-]+ apart at most, 0.05 is allowed", three)


def test_step_pooling_is_compared_too(classifier: Path) -> None:
    model = model_to_serve(str(classifier), protocol="token-classifier")
    newline = ServedPRM(
        url="http://a", model=str(classifier), protocol="token-classifier"
    ).tokenizer_used("\n", add_special_tokens=False)["input_ids"]
    found = VLLMCommand(replace(model, step_tag=newline[0]), VLLMSettings())
    with served(StandIn(classifier, (str(classifier),), step_tag=newline[0])) as url:
        assert len(lines(found, url)) == 3


def test_a_server_that_reads_another_token_fails(classifier: Path) -> None:
    found = command(str(classifier), protocol="token-classifier")
    settings = replace(LOCAL, tolerance=1e-4)
    with (
        served(StandIn(classifier, (str(classifier),), shift=1)) as url,
        pytest.raises(SignalError) as caught,
    ):
        lines(found, url, settings)
    line = str(caught.value)
    assert line.startswith(f"{url}: its scores are ")
    assert line.endswith("): another protocol or other weights")


def test_a_server_of_another_model_fails_by_its_name(classifier: Path) -> None:
    found = command(str(classifier), protocol="token-classifier")
    with served(StandIn(classifier, ("other", "b"))) as url, pytest.raises(SignalError) as caught:
        lines(found, url)
    assert str(caught.value) == f"{url}: serves b, other, not {classifier}"


def test_pooling_of_another_kind_fails(classifier: Path) -> None:
    found = command(str(classifier), protocol="token-classifier")
    with (
        served(StandIn(classifier, (str(classifier),), step_tag=0)) as url,
        pytest.raises(SignalError) as caught,
    ):
        lines(found, url)
    assert "rows of scores, expected" in str(caught.value)


def test_a_teacher_is_compared(language_model: Path) -> None:
    found = command(str(language_model), role="teacher")
    with served(StandIn(language_model, (str(language_model),))) as url:
        one, two, three = lines(found, url)
    assert one == f"serves {language_model}"
    count = re.match(r"(\d+) tokens, (\d+) log-probs, -", two)
    assert count is not None
    assert count[1] == count[2]
    assert "apart on average" in three


def test_a_teacher_of_shifted_logprobs_fails(language_model: Path) -> None:
    found = command(str(language_model), role="teacher")
    stand_in = StandIn(language_model, (str(language_model),), shift=1)
    with served(stand_in) as url, pytest.raises(SignalError, match=r"apart on average"):
        lines(found, url, replace(LOCAL, tolerance=1e-3))


def test_without_the_weights_the_rest_is_checked(classifier: Path) -> None:
    found = command("Qwen/Qwen2.5-Math-PRM-7B")
    model = replace(found.model, protocol="token-classifier", step_tag=None, context=None)
    found = VLLMCommand(model, VLLMSettings())
    settings = CheckSettings(tokenizer=str(classifier))
    with served(StandIn(classifier, ("Qwen/Qwen2.5-Math-PRM-7B",))) as url:
        *_, last = lines(found, url, settings)
        skipped = lines(found, url, replace(settings, local=False))[-1]
    assert last.endswith("its weights are not on this machine (--local loads them)")
    assert skipped == "not compared with the model itself: --no-local"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the Hub's cache: at v1 whole models, at main other weights and no tokenizer."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for seed, revision in enumerate(("main", "v1")):
        commit = str(seed) * 40
        for name in ("teacher", "prm"):
            repository = tmp_path / f"models--own--{name}"
            (repository / "refs").mkdir(parents=True, exist_ok=True)
            (repository / "refs" / revision).write_text(commit)
        save_language_model(tmp_path / "models--own--teacher" / "snapshots" / commit, seed)
        save_reward_model(
            tmp_path / "models--own--prm" / "snapshots" / commit, "token-classifier", {}
        )
    for file in tmp_path.glob(f"*/snapshots/{'0' * 40}/*token*"):
        file.unlink()
    return tmp_path


@pytest.mark.parametrize("name", ["teacher", "prm"])
def test_tokenizer_and_weights_are_those_of_the_revision(hub: Path, name: str) -> None:
    roles = {"teacher": {"role": "teacher"}, "prm": {"protocol": "token-classifier"}}[name]
    settings = replace(LOCAL, tolerance=1e-4)
    folder = hub / f"models--own--{name}" / "snapshots" / ("1" * 40)
    with served(StandIn(folder, (f"own/{name}",))) as url:
        found = lines(command(f"own/{name}", **roles, revision="v1"), url, settings)
    assert found[-1].startswith("as the model in this process: ")


@pytest.mark.parametrize("model", SERVED, ids=lambda each: each.name)
def test_scores_of_two_revisions_are_not_the_same(model: Any) -> None:
    one, two = (VLLMCommand(model, VLLMSettings(revision=each)) for each in ("v1", "v2"))
    assert one.signal_fields()["revision"] == "v1"
    assert one.signal_fields() != two.signal_fields()
    assert "--revision v1" in one.named


@pytest.mark.parametrize(
    ("extra", "shown"),
    [
        (("--api-key", "sk-secret-1"), "--api-key '***'"),
        (("--api-key", "sk-secret-1", "sk-secret-2"), "--api-key '***' '***'"),
        (("--api-key=sk-secret-1", "--enforce-eager"), "'--api-key=***' --enforce-eager"),
        (("--api_key=sk-secret-1",), "'--api_key=***'"),
        (("--api-k", "sk-secret-1"), "--api-k '***'"),
        (("--api-key sk-secret-1",), "'--api-key ***'"),
        (("--hf-token", "sk-secret-1"), "--hf-token '***'"),
        (("--seed", "3"), "--seed 3"),
    ],
)
def test_keys_are_not_shown(extra: tuple[str, ...], shown: str) -> None:
    found = command("Qwen/Qwen3-8B", extra=extra)
    assert found.arguments[-len(extra) :] == list(extra)
    assert found.shown.endswith(f"--port 8000 {shown}")
    assert shlex.split(found.text.replace("\\\n", "")) == shlex.split(found.shown)
    secrets = re.findall(r"sk-secret-\d", " ".join(extra))
    assert found.secrets == secrets


def test_nobody_answers() -> None:
    found = command("Qwen/Qwen3-8B")
    with pytest.raises(SignalError) as caught:
        lines(found, "http://127.0.0.1:9")
    assert str(caught.value) == "http://127.0.0.1:9/v1/models: connection refused"


def test_weights_are_found_without_a_download(classifier: Path, tmp_path: Path) -> None:
    assert has_weights(str(classifier))
    assert not has_weights(str(tmp_path))
    index = '{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}'
    (tmp_path / "model.safetensors.index.json").write_text(index)
    (tmp_path / "one.safetensors").write_bytes(b"")
    assert not has_weights(str(tmp_path))
    (tmp_path / "two.safetensors").write_bytes(b"")
    assert has_weights(str(tmp_path))
