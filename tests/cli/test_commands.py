"""What the commands print and write, and how they end."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run, environment, read, write

import stepcredit as sc
from stepcredit.cli import COMMANDS, progress
from stepcredit.cli.lazy_loading import loaded_command

ROWS: list[dict[str, Any]] = [
    {
        "group": 17,
        "step_ends": [1, 2, 4],
        "step_scores": [0.9, 0.9, 0.6],
        "outcome": 1.0,
        "format": 1.0,
        "tokens": ["Let", " x", "\n", "\x1bbe", " 4"],
    },
    {
        "group": "17",
        "step_ends": [2, 4],
        "step_scores": [0.2, 0.6],
        "outcome": 0.0,
        "format": 1.0,
    },
]
MUTE = {"group": "b", "length": 2, "format_ok": False}


def test_shape_writes_one_advantage_a_token(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    assert run("shape", "in.jsonl", "-o", "out.jsonl", "--set", "k=0.7").err == ""
    got = [row["advantages"] for row in read(tmp_path / "out.jsonl")]
    assert got == [
        [1.7553273, 1.7553273, 1.3406178, 0.56826425, 0.56826425],
        [-1.8961533, -1.8961533, -1.8961533, -0.8459473, -0.8459473],
    ]


def test_a_method_of_methods_is_shaped_as_in_python(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    inner = {"pass": {"k": 1.0, "gate": False}}
    given = ("--set", "first=rloo", "--set", f"second={json.dumps(inner)}", "--set", "share=0.25")
    assert run("shape", "in.jsonl", "-o", "out.jsonl", "--method", "mix", *given).err == ""
    got = [row["advantages"] for row in read(tmp_path / "out.jsonl")]
    method = sc.Mix(first="rloo", second=inner, share=0.25)
    rollouts = sc.read_rollouts(tmp_path / "in.jsonl")
    want = [row.tolist() for row in method(rollouts).ragged()]
    assert got == [pytest.approx(row, rel=1e-6) for row in want]


def test_set_takes_json_and_bare_words(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    settings = ("--set", "operator=abs_max", "--set", "weights=[2, 1, 0.5]", "--set", "gate=false")
    assert run("shape", "in.jsonl", "-o", "out.jsonl", *settings).code == 0
    method = sc.PASS(operator="abs_max", weights=(2, 1, 0.5), gate=False)
    expected = method(sc.read_rollouts(tmp_path / "in.jsonl")).packed().tolist()
    got = [value for row in read(tmp_path / "out.jsonl") for value in row["advantages"]]
    assert got == pytest.approx(expected, abs=1e-6)


def test_output_may_be_the_input_and_standard_streams(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    content = (tmp_path / "in.jsonl").read_bytes()
    piped = run("shape", "-", "-o", "-", stdin=content)
    assert (piped.code, piped.err) == (0, "")
    assert run("shape", "in.jsonl", "-o", "in.jsonl").code == 0
    assert (tmp_path / "in.jsonl").read_text() == piped.out
    assert run("shape", "in.jsonl", "-o", "in.jsonl").code == 0
    assert (tmp_path / "in.jsonl").read_text() == piped.out


def test_standard_output_stays_empty_on_a_fault(run: Run) -> None:
    rows = b'{"group": 1, "length": 1}\n' * 5000 + b"{"
    ended = run("shape", "-", "-o", "-", stdin=rows)
    expected = (
        "-:5001: is not JSON: Expecting property name enclosed in double quotes at column 2\n"
    )
    assert (ended.code, ended.out, ended.err) == (1, "", expected)


def test_gzip_in_and_out(run: Run, tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    assert run("shape", "in.jsonl.gz", "-o", "out.jsonl.gz").code == 0
    assert run("shape", "in.jsonl.gz", "-o", "out.jsonl").code == 0
    unpacked = gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes())
    assert unpacked == (tmp_path / "out.jsonl").read_bytes()


def test_scattered_groups_from_a_pipe_and_gzip(run: Run, tmp_path: Path) -> None:
    rows = [
        {"group": i % 100, "length": 1 + i % 3, "outcome": float(i % 7), "id": i}
        for i in range(3000)
    ]
    write(tmp_path / "in.jsonl", rows)
    content = (tmp_path / "in.jsonl").read_bytes()
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(content))
    assert run("shape", "in.jsonl", "-o", "out.jsonl").code == 0
    assert run("shape", "in.jsonl.gz", "-o", "from_gz.jsonl").code == 0
    piped = run("shape", "-", "-o", "-", stdin=content)
    out = (tmp_path / "out.jsonl").read_text()
    assert (piped.code, piped.out) == (0, out)
    assert (tmp_path / "from_gz.jsonl").read_text() == out
    shaped = sc.PASS()(sc.read_rollouts(tmp_path / "in.jsonl")).ragged()
    for row, shaped_row, expected in zip(rows, read(tmp_path / "out.jsonl"), shaped, strict=True):
        advantages = pytest.approx(expected.tolist(), abs=1e-6)
        assert shaped_row == row | {"advantages": advantages}


def test_the_file_is_the_batch_of_a_batch_wide_method(run: Run, tmp_path: Path) -> None:
    rows = [
        {"group": i // 4, "length": 1 + i % 3, "outcome": float(i % 5), "format": float(i % 2)}
        for i in range(6000)
    ]
    write(tmp_path / "in.jsonl", rows)
    for norm in ("response", "token"):
        options = ("--method", "gdpo", "--set", f"batch_norm={norm}")
        assert run("shape", "in.jsonl", "-o", "out.jsonl", *options).code == 0
        whole = sc.GDPO(batch_norm=norm)(sc.read_rollouts(tmp_path / "in.jsonl"))
        got = [value for row in read(tmp_path / "out.jsonl") for value in row["advantages"]]
        assert got == pytest.approx(whole.packed().tolist(), abs=1e-6)


def test_the_file_is_the_batch_whose_largest_return_prime_divides_by(
    run: Run, tmp_path: Path
) -> None:
    rows = [
        {"group": i // 2, "length": 2, "prm_logprobs": [-0.1 * i, -1.0], "ref_logprobs": [-0.5, 0]}
        for i in range(9)
    ]
    write(tmp_path / "in.jsonl", rows)
    options = ("--method", "prime", "--set", "norm=batch", "--set", "whiten_batch=false")
    ended = run("shape", "in.jsonl", "-o", "out.jsonl", *options)
    assert (ended.code, ended.err) == (0, "")
    method = sc.PRIME(norm="batch", whiten_batch=False)
    rollouts = sc.read_rollouts(tmp_path / "in.jsonl")
    got = [v for row in read(tmp_path / "out.jsonl") for v in row["advantages"]]
    assert got == pytest.approx(method(rollouts).packed().tolist())
    out = run("explain", "in.jsonl", "--group", "1", *options).out
    shown = [float(line.split()[-1]) for line in out.splitlines() if " 0-0 " in line]
    assert shown == pytest.approx(got[4:8:2], abs=1e-4)
    write(tmp_path / "in.jsonl", [*rows, {"group": 9, "length": 1, "prm_logprobs": [-1.0]}])
    ended = run("shape", "in.jsonl", "-o", "out.jsonl", *options)
    assert (ended.code, ended.err) == (1, "in.jsonl:10: ref_logprobs: missing: prime needs it\n")


def test_a_mute_gate_is_a_warning(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [*ROWS, MUTE, MUTE])
    ended = run("shape", "in.jsonl", "-o", "out.jsonl")
    expected = "in.jsonl:3: format_ok: false, but there is no format (and 1 more row)\n"
    assert (ended.code, ended.err) == (0, f"warning: {expected}")


def test_validate_prints_what_the_file_holds(run: Run, tmp_path: Path) -> None:
    masked = {"group": 5, "loss_mask": [1, 0, 0], "step_ends": [0, 2], "step_scores": [0.5, 9]}
    write(tmp_path / "in.jsonl", [*ROWS, masked])
    ended = run("validate", "in.jsonl")
    assert ended.out.splitlines() == [
        "rollouts   3 in 2 groups",
        "tokens     11, 2 more not trained",
        "process    a score per step, on 3 of 3 rollouts, 6 in all",
        "outcome    known for 2, unknown for 1",
        "format     known for 2, unknown for 1",
        "format_ok  false for 0",
    ]
    warning = "in.jsonl: 1 steps without a trained token are left out, with their scores\n"
    assert (ended.code, ended.err) == (0, f"warning: {warning}")


def test_explain_prints_every_stage(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [MUTE | {"format": 0.0}, *ROWS])
    ended = run("explain", "in.jsonl", "--group", "17")
    assert (ended.code, ended.err) == (0, "")
    rollouts = sc.read_rollouts(tmp_path / "in.jsonl").take([1, 2])
    assert ended.out.rstrip() == str(sc.PASS().explain(rollouts))


def test_explain_shows_the_columns_of_many_streams_whole(run: Run, tmp_path: Path) -> None:
    names = [f"stream-{i}" for i in range(6)]
    signals = {name: {"ends": [0, 1], "scores": [0.5, 0.1]} for name in names}
    write(tmp_path / "in.jsonl", [{"group": 1, "length": 2, "signals": signals}])
    weights = json.dumps(dict.fromkeys(names, 1.0))
    options = ("--method", "pass-min", "--set", f"weights={weights}")
    out = run("explain", "in.jsonl", "--group", "1", *options).out
    heading = next(line for line in out.splitlines() if line.startswith("group"))
    assert heading.split()[-1] == "advantage"
    assert all(f"N(return)({name})" in heading for name in names)


def test_explain_one_rollout(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    whole = run("explain", "in.jsonl", "--group", "17").out.splitlines()
    one = run("explain", "in.jsonl", "--group", "17", "--rollout", "1").out.splitlines()
    assert [line.split() for line in one[-2:]] == [line.split() for line in whole[-2:]]
    assert len(one) == len(whole) - 3
    far = run("explain", "in.jsonl", "--group", "17", "--rollout", "2")
    assert (far.code, far.err) == (1, "--rollout 2: group 17 has 2, from 0\n")
    none = run("explain", "in.jsonl", "--group", "18")
    assert (none.code, none.err) == (1, "--group 18: there is no such group in in.jsonl\n")


def long_group(rollouts: int, tokens: int) -> list[dict[str, Any]]:
    """A group whose rollouts have one chunk per token."""
    return [
        {"group": "g", "token_scores": [(i + j) % 3 for j in range(tokens)], "outcome": i % 2}
        for i in range(rollouts)
    ]


def explained(run: Run, *options: str) -> list[str]:
    """What `explain` prints below the headings, one chunk per token."""
    ended = run("explain", "in.jsonl", "--group", "g", "--set", "chunks=tokens", *options)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    heading = next(at for at, line in enumerate(lines) if line.startswith("group  "))
    return [line for line in lines[heading + 1 :] if not line.startswith("warning")]


def test_explain_shows_200_chunks_and_how_to_see_others(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", long_group(4, 100))
    whole = explained(run, "--chunks", "400")
    hint = "others: --chunks A:B, --rollout I, --rollouts A:B"
    assert len(whole) == 400
    first = explained(run)
    assert [line.split() for line in first[:-1]] == [line.split() for line in whole[:200]]
    assert first[-1] == f"chunks 0 to 199 of 400 are shown; {hint}"
    part = explained(run, "--rollouts", "1:3", "--chunks", "100:102")
    assert [line.split() for line in part[:-1]] == [line.split() for line in whole[200:202]]
    assert part[-1] == f"chunks 100 to 101 of 200 of these rollouts are shown; {hint}"
    rest = explained(run, "--rollouts", "3:")
    assert [line.split() for line in rest] == [line.split() for line in whole[300:]]


RANGES = {
    ("--rollouts", "4:"): "--rollouts 4:: group g has 4, from 0",
    ("--rollouts", "2:2"): "--rollouts: expected A:B with A below B, got '2:2'",
    ("--rollouts", "2"): "--rollouts: expected A:B, whole numbers from 0, got '2'",
    ("--rollouts", "-1:"): "--rollouts: expected A:B, whole numbers from 0, got '-1:'",
    ("--rollouts", ":1", "--rollout", "1"): "--rollouts: --rollout is given too; expected one of "
    "the two",
    ("--rollouts", ":1", "--color"): "--color: shows one rollout: name it with --rollout, "
    "not with --rollouts",
    ("--chunks", "0"): "--chunks: expected at least 1 chunk, got 0",
    ("--chunks", "all"): "--chunks: expected N or A:B, whole numbers from 0, got 'all'",
    ("--chunks", "12:"): "--chunks: there are 12 chunks, from 0",
    ("--chunks", "3:", "--rollout", "1"): "--chunks: there are 3 chunks, from 0",
}


@pytest.mark.parametrize("options", RANGES, ids=" ".join)
def test_explain_refuses_what_is_not_there(
    options: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    write(tmp_path / "in.jsonl", long_group(4, 3))
    ended = run("explain", "in.jsonl", "--group", "g", "--set", "chunks=tokens", *options)
    assert (ended.code, ended.out, ended.err) == (1, "", RANGES[options] + "\n")


@pytest.mark.parametrize("width", ["20", "80"])
@pytest.mark.parametrize("command", [("explain", "--group", "g"), ("compare", "pass", "grpo")])
def test_a_narrow_terminal_cuts_no_number(
    command: tuple[str, ...], width: str, run_process: Run, tmp_path: Path
) -> None:
    """On a terminal of any width the lines are those of a pipe; the terminal wraps them."""
    write(tmp_path / "in.jsonl", long_group(2, 3))
    name, *options = command
    words = [sys.executable, "-m", "stepcredit", name, "in.jsonl", *options]
    piped = run_process(name, "in.jsonl", *options).out
    seen = on_terminal(words, tmp_path, environment() | {"COLUMNS": width})
    assert piped != ""
    assert seen.replace(b"\r\n", b"\n").decode() == piped


def on_terminal(command: list[str], folder: Path, env: dict[str, str]) -> bytes:
    """What a command writes to a terminal of its own."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    running = subprocess.Popen(command, cwd=folder, env=env, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    with suppress(OSError):  # the terminal is gone once the command has ended
        while piece := os.read(ours, 1 << 16):
            seen += piece
    os.close(ours)
    running.wait()
    return seen


def test_explain_knows_the_whole_file_of_a_batch_wide_method(run: Run, tmp_path: Path) -> None:
    rows = [{"group": i // 2, "length": 2, "outcome": float(i % 3)} for i in range(8)]
    write(tmp_path / "in.jsonl", rows)
    run("shape", "in.jsonl", "-o", "out.jsonl", "--method", "gdpo")
    out = run("explain", "in.jsonl", "--group", "1", "--method", "gdpo").out
    shown = [float(line.split()[-1]) for line in out.splitlines() if " 0-1 " in line]
    written = [row["advantages"][0] for row in read(tmp_path / "out.jsonl")[2:4]]
    assert shown == pytest.approx(written, abs=1e-4)


def test_color_paints_tokens_by_credit(run: Run, tmp_path: Path) -> None:
    masked = ROWS[1] | {"loss_mask": [1, 1, 1, 0, 1], "text": "one two three four five"}
    write(tmp_path / "in.jsonl", [ROWS[0], masked])
    first = run("explain", "in.jsonl", "--group", "17", "--color")
    assert (first.code, first.err) == (0, "")
    assert "\x1b[30;48;2;0;240;0mLet\x1b[0m" in first.out
    assert "\x1b[30;48;2;0;197;0m↵\x1b[0m\n" in first.out
    second = run("explain", "in.jsonl", "--group", "17", "--color", "--rollout", "1").out
    assert "\x1b[37;48;2;240;0;0mone\x1b[0m" in second
    assert "\x1b[2m four\x1b[0m" in second
    assert "\\x1bbe" in first.out
    assert "not trained" in second


def test_color_without_texts_shows_indexes(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [ROWS[1], ROWS[1] | {"outcome": 1.0, "text": "no match"}])
    out = run("explain", "in.jsonl", "--group", "17", "--color", "--rollout", "1").out
    assert " 4\x1b[0m" in out


def test_methods_lists_every_method(run: Run) -> None:
    out = run("methods").out
    for name, method in sc.methods().items():
        assert f"{name}  " in out
        assert all(f"    {line}" in out for line in method.equation.splitlines()[:1])
    assert "  k                 0.7              exponent of the chunks left" in out.splitlines()


def test_a_long_file_on_a_terminal_gets_a_progress_bar(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in.jsonl", [{"group": i // 2, "length": 1} for i in range(2000)])
    monkeypatch.setattr(progress, "PROGRESS_BAR_BYTES", 1000)
    assert run("validate", "in.jsonl").err == ""
    shares: list[float] = []
    monkeypatch.setattr(progress, "_is_terminal", lambda: True)
    monkeypatch.setattr(
        "rich.progress.Progress.update", lambda *_, completed: shares.append(completed)
    )
    assert run("validate", "in.jsonl").code == 0
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= (tmp_path / "in.jsonl").stat().st_size


def test_help_needs_no_torch() -> None:
    listed = "import sys, stepcredit.cli"
    every = """
from stepcredit.cli import COMMANDS, lazy_loading
for commands in COMMANDS.values():
    for name, (target, _) in commands.items():
        lazy_loading.loaded_command(name, f"stepcredit.cli.{target}")
"""
    for code in (listed, listed + every):
        code += "\nsys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], env=environment()).returncode == 0


def test_the_list_of_commands_says_what_each_command_says() -> None:
    for commands in COMMANDS.values():
        for name, (target, about) in commands.items():
            help = loaded_command(name, f"stepcredit.cli.{target}").help
            assert " ".join(help.split("\n\n")[0].split()) == about


def test_as_a_process(start_process: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [*ROWS, {"group": 1}])
    ended = start_process("shape", "in.jsonl", "-o", "out.jsonl")
    expected = "in.jsonl:3: length: missing, and no other field implies it\n"
    assert (ended.code, ended.out, ended.err) == (1, "", expected)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_quiet_and_leaves_nothing(stop: int, code: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stepcredit", "shape", "-", "-o", "out.jsonl"]
    running = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdin is not None
    running.stdin.write(b'{"group": 1, "length": 1}\n' * 20_000)  # blocks until it is being read
    running.stdin.flush()
    time.sleep(0.1)
    running.send_signal(stop)
    running.wait(timeout=60)
    assert running.stdout is not None
    assert running.stderr is not None
    with running.stdout, running.stderr, suppress(BrokenPipeError), running.stdin:
        ended = (running.returncode, running.stdout.read(), running.stderr.read())
    assert ended == (code, b"", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_pipe_is_quiet(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [{"group": 1, "length": 9, "outcome": 1.0}] * 5000)
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "stepcredit", "shape", "in.jsonl", "-o", "-"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_standard_output_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "stepcredit", "methods"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "standard output: no space left on device\n")


ALONE = "every group has one response, so that there is nothing to compare it with"


@pytest.mark.parametrize(("method", "warned"), [("grpo", True), ("pass", True), ("opd", False)])
def test_groups_of_one_response_are_warned_of(
    method: str, warned: bool, run: Run, tmp_path: Path
) -> None:
    probs = {"student_logprobs": [-1.0, -2.0], "teacher_logprobs": [-1.5, -1.0]}
    rows = [{"group": at, "length": 2, "outcome": 1.0} | probs for at in range(3)]
    write(tmp_path / "in.jsonl", rows)
    ended = run("shape", "in.jsonl", "-o", "out.jsonl", "--method", method)
    assert (ended.code, ALONE in ended.err) == (0, warned)
    assert ALONE in run("validate", "in.jsonl").err
    write(tmp_path / "in.jsonl", [*rows, rows[0]])
    assert run("shape", "in.jsonl", "-o", "out.jsonl", "--method", method).err == ""
    assert run("validate", "in.jsonl").err == ""


@pytest.mark.parametrize(("method", "warned"), [("grpo", False), ("pass", True)])
def test_a_file_without_a_response_in_the_format_is_warned_of(
    method: str, warned: bool, run: Run, tmp_path: Path
) -> None:
    row = {"group": 1, "length": 2, "outcome": 1.0, "format": 0.0, "format_ok": False}
    write(tmp_path / "in.jsonl", [row, row | {"outcome": 0.0}])
    said = "warning: in.jsonl: format_ok is false for all 2 responses, so that no score and no "
    ended = run("shape", "in.jsonl", "-o", "out.jsonl", "--method", method)
    assert (ended.code, ended.err.startswith(said)) == (0, warned)
    assert run("validate", "in.jsonl").err.startswith(said)
    write(tmp_path / "in.jsonl", [row, row | {"format_ok": True}])
    assert run("shape", "in.jsonl", "-o", "out.jsonl", "--method", method).err == ""


def test_tokens_of_a_tokenizer_are_painted(run: Run, tmp_path: Path) -> None:
    from tests.prm.vocabularies import qwen

    qwen().save_pretrained(tmp_path / "policy")
    log = [
        {"input": "3+4?", "output": f"So it is {at}.", "score": float(at), "uid": f"a_{at}_0"}
        for at in range(2)
    ]
    write(tmp_path / "log.jsonl", log)
    run("convert", "log.jsonl", "-o", "in.jsonl", "--tokenizer", "policy")
    assert "token_ids" in read(tmp_path / "in.jsonl")[0]
    shown = run("explain", "in.jsonl", "--group", "log/0", "--method", "grpo", "--color").out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert plain.startswith("So it is 0.")
