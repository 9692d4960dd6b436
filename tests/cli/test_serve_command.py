"""`stepcredit serve`: what it prints, and how it waits for a server: a stand-in `vllm` on PATH."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")  # the tiny models' module imports its neighbours

from tests.cli.conftest import Run, environment
from tests.prm.stand_in_vllm import StandIn, served
from tests.signals.served.test_client import free_port
from typer.testing import CliRunner

from stepcredit.cli import app
from stepcredit.cli.serve import command_for
from stepcredit.errors import SignalError
from stepcredit.launch.tiny_models import save_reward_model
from stepcredit.prm.serving.ports import refuse_used_port
from stepcredit.prm.serving.server_process import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
VLLM = f"""#!{sys.executable}
import os, sys, time
print("loading weights", flush=True)
print("arguments:", *sys.argv[1:], flush=True)
what = os.environ["VLLM_DOES"]
if what == "dies":
    print("ValueError: no GPU", flush=True)
    sys.exit(3)
if what == "stubborn":
    import signal
    signal.signal(signal.SIGTERM, lambda *_: print("draining", flush=True))
open(os.environ["VLLM_PID"], "w").write(str(os.getpid()))
if what in ("never", "stubborn"):
    time.sleep(600)
time.sleep(1.0)
from pathlib import Path
from tests.prm.stand_in_vllm import StandIn, served
port = int(sys.argv[sys.argv.index("--port") + 1])
with served(StandIn(Path(sys.argv[2]), (sys.argv[2],), shift=int(what == "wrong")), port):
    print("ready", flush=True)
    time.sleep(4.0 if what == "ends" else 600)
"""
COMMAND = re.compile(r"(?:^[#$ ]*|`)((?:[A-Z_]+=\S+ )?(?:stepcredit|vllm) serve [^`]*)")
"""A command in a line of a page or a recipe."""
STOPPING = "stopping the server (Ctrl-C again kills it)"
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_reward_model(tmp_path_factory.mktemp("own"), "token-classifier", {})


@pytest.fixture
def start(tmp_path: Path, model: str) -> Start:
    """Starts `stepcredit serve MODEL --start` with a `vllm` that does something."""
    script = tmp_path / "bin" / "vllm"
    script.parent.mkdir()
    script.write_text(VLLM)
    script.chmod(0o755)

    def run(does: str, *options: str, port: int | None = None) -> subprocess.Popen[str]:
        here = environment()
        here |= {"PATH": f"{script.parent}:{here['PATH']}", "VLLM_DOES": does}
        here |= {"VLLM_PID": str(tmp_path / "pid"), "NO_PROXY": ""}
        here["HTTP_PROXY"] = "http://127.0.0.1:9"  # as in many companies: unused on this machine
        here["PYTHONPATH"] = f"{here['PYTHONPATH']}:{ROOT}"
        own = ["serve", model, "--protocol", "token-classifier", "--start", *options]
        return subprocess.Popen(
            [sys.executable, "-m", "stepcredit", *own, "--port", str(port or free_port())],
            env=here,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return run


def is_running(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def has_ended(pid: int, seconds: float = 10.0) -> bool:
    """Whether a process that was killed ends; the kernel does so a little after the signal."""
    until = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not is_running(pid)


def started_pid(command: subprocess.Popen[str], folder: Path) -> int:
    """The process id of the stand-in, once it runs."""
    pid = folder / "pid"
    while not (pid.exists() and pid.read_text()):
        assert command.poll() is None
        time.sleep(0.05)
    return int(pid.read_text())


def test_a_server_that_dies_is_told_at_once_with_its_last_lines(start: Start) -> None:
    with start("dies", "--wait", "500") as command:
        out, err = command.communicate(timeout=250)
    assert (command.returncode, out) == (1, "")
    *_, first, second, third, last = err.splitlines()
    assert first == "  loading weights"
    assert second.startswith("  arguments: serve ")
    assert third == "  ValueError: no GPU"
    expected = "vllm: ended with code 3 before it was healthy; its last line: ValueError: no GPU"
    assert last == expected


def test_a_child_that_holds_the_output_of_an_ended_server_is_killed_first() -> None:
    port = free_port()
    script = "sleep 600 & echo $!; echo engine failed; exit 3"
    url, where = f"http://127.0.0.1:{port}", {"host": "127.0.0.1", "port": port}
    with ServerProcess(["sh", "-c", script], url, **where) as server:
        with pytest.raises(SignalError) as caught:
            server.wait_until_healthy(600, lambda seconds, last: None)
        expected = "sh: ended with code 3 before it was healthy; its last line: engine failed"
        assert str(caught.value) == expected
        assert has_ended(int(server.lines[0]))


def test_keys_are_hidden_in_what_a_server_writes(tmp_path: Path) -> None:
    log, port = tmp_path / "log", free_port()
    script = "echo \"args: {'api_key': ['sk-secret-1']}\"; exit 3"
    where: dict[str, Any] = {"host": "127.0.0.1", "port": port, "log": log}
    with (
        ServerProcess(["sh", "-c", script], "http://a", **where, secrets=["sk-secret-1"]) as server,
        pytest.raises(SignalError) as caught,
    ):
        server.wait_until_healthy(600, lambda seconds, last: None)
    assert str(caught.value).endswith("; its last line: args: {'api_key': ['***']}")
    assert log.read_text() == "args: {'api_key': ['***']}\n"


def test_a_key_is_not_printed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    own = ("serve", "Qwen/Qwen3-8B", "--port", str(free_port()))
    own += ("--vllm=--api-key", "--vllm=sk-secret-1")
    for ended in (run(*own), run(*own, "--start")):
        assert "--api-key '***'" in ended.out + ended.err
        assert "sk-secret" not in ended.out + ended.err


def test_a_server_that_never_gets_healthy_is_ended(start: Start, tmp_path: Path) -> None:
    with start("never", "--wait", "3") as command:
        _, err = command.communicate(timeout=250)
    assert command.returncode == 1
    last = err.splitlines()[-1]
    pattern = r"http://localhost:\d+: not healthy within 3 s; its last line: arguments: serve .*"
    assert re.fullmatch(pattern, last)
    assert has_ended(int((tmp_path / "pid").read_text()))


def test_a_server_that_is_healthy_after_a_while_is_checked_and_kept(
    start: Start, tmp_path: Path, model: str
) -> None:
    log = tmp_path / "vllm.log"
    with start("serves", "--log", str(log)) as command:
        assert command.stdout is not None
        lines = [command.stdout.readline() for _ in range(3)]
        assert lines[0].endswith(f": serves {model}\n")
        assert "3 steps, 3 scores" in lines[1]
        assert "as the model in this process" in lines[2]
        server = int((tmp_path / "pid").read_text())
        assert is_running(server)
        command.send_signal(signal.SIGINT)
        _, err = command.communicate(timeout=120)
    assert command.returncode == 130
    assert re.search(r"healthy after \d+ s\n", err)
    assert err.endswith(f"{STOPPING}\n")
    assert has_ended(server)
    assert "ready" in log.read_text()


def test_a_server_that_scores_wrongly_is_ended(start: Start, tmp_path: Path) -> None:
    with start("wrong", "--tolerance", "0.0001") as command:
        _, err = command.communicate(timeout=250)
    assert command.returncode == 1
    assert err.splitlines()[-1].endswith("another protocol or other weights")
    assert has_ended(int((tmp_path / "pid").read_text()))


def test_ctrl_c_while_it_waits_ends_the_server(start: Start, tmp_path: Path) -> None:
    with start("never") as command:
        pid = started_pid(command, tmp_path)
        command.send_signal(signal.SIGTERM)
        _, err = command.communicate(timeout=120)
    assert command.returncode == 143
    assert err.endswith(f"{STOPPING}\n")
    assert has_ended(pid)


def test_a_second_ctrl_c_kills_a_server_that_does_not_end(start: Start, tmp_path: Path) -> None:
    with start("stubborn") as command:
        assert command.stderr is not None
        pid = started_pid(command, tmp_path)
        command.send_signal(signal.SIGINT)
        while command.stderr.readline() != f"{STOPPING}\n":
            assert command.poll() is None
        assert is_running(pid)
        command.send_signal(signal.SIGINT)
        command.communicate(timeout=120)
    assert command.returncode == 130
    assert has_ended(pid)


def test_another_server_at_the_port_is_not_taken_for_the_one_started(
    start: Start, tmp_path: Path, model: str
) -> None:
    if not Path("/proc/net/tcp").exists():
        pytest.skip("the system does not say whose a socket is")
    port = free_port()
    with start("never", port=port) as command:
        pid = started_pid(command, tmp_path)
        with served(StandIn(Path(model), (model,)), port):
            out, err = command.communicate(timeout=250)
    assert (command.returncode, out) == (1, "")
    assert err.splitlines()[-1] == (
        f"http://localhost:{port}: another process listens at port {port}, so another server may "
        "answer: give another with --port"
    )
    assert has_ended(pid)


def test_without_vllm_it_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    ended = run("serve", "Qwen/Qwen3-8B", "--start", "--port", str(free_port()))
    assert ended.code == 1
    last = ended.err.splitlines()[-1]
    assert last.startswith("vllm: can't be started: ")
    assert last.endswith("; is its environment active? `pip install vllm` installs it")


@pytest.mark.parametrize("listens", [True, False])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", None])
def test_a_port_in_use_is_refused_also_before_its_server_listens(
    run: Run, host: str | None, listens: bool
) -> None:
    with socket.socket() as other:
        for shared in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):  # as vLLM binds
            other.setsockopt(socket.SOL_SOCKET, shared, 1)
        other.bind(("127.0.0.1", 0))
        if listens:
            other.listen()
        port = other.getsockname()[1]
        where = ("--port", str(port), *(("--host", host) if host else ()))
        ended = run("serve", "Qwen/Qwen3-8B", "--start", *where)
    assert ended.code == 1
    last = ended.err.splitlines()[-1]
    expected = f"port {port} is in use: give another with --port"
    assert last == f"http://{host or 'localhost'}:{port}: {expected}"


def test_a_port_that_closed_connections_hold_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        served_side, _ = server.accept()
        served_side.close()  # the side that closes first holds the port for a minute
        client.close()
    refuse_used_port("127.0.0.1", port, "there")


def test_an_ipv6_host_stands_in_brackets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    port = free_port()
    ended = run("serve", "Qwen/Qwen3-8B", "--start", "--host", "::1", "--port", str(port))
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("vllm: can't be started: ")
    own = command_for("Qwen/Qwen3-8B", None, None, [], {"host": "::1", "port": port})
    assert own.url == f"http://[::1]:{port}"


def test_running_servers_are_verified_each(
    run: Run, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    own = ("serve", model, "--protocol", "token-classifier", "--local")
    good, bad = StandIn(Path(model), (model,)), StandIn(Path(model), ("other",))
    with served(good) as one, served(bad) as two:
        ended = run(*own, "--verify", one)
        assert ended.code == 0, ended.err
        assert [line.partition(": ")[0] for line in ended.out.splitlines()] == [one] * 3
        ended = run(*own, "--verify", one, "--verify", two)
    assert ended.code == 1
    assert ended.err.splitlines()[-1] == f"{two}: serves other, not {model}"


def test_the_printed_lines_are_a_script(run: Run) -> None:
    ended = run("serve", "Qwen/Qwen2.5-Math-PRM-7B", "--port", "8123")
    assert (ended.code, ended.err) == (0, "")
    *command, signal_line, check = ended.out.splitlines()
    words = shlex.split("\n".join(command).replace("\\\n", ""))
    assert words[:3] == ["vllm", "serve", "Qwen/Qwen2.5-Math-PRM-7B"]
    assert signal_line == (
        "# scored by: --signal prm-served --set url=http://HOST:8123 "
        "--set model=Qwen/Qwen2.5-Math-PRM-7B --set protocol=qwen2.5-math-prm --set pooling=step "
        "--set context=4096"
    )
    assert check == (
        "# checked by: stepcredit serve Qwen/Qwen2.5-Math-PRM-7B --protocol qwen2.5-math-prm "
        "--verify http://HOST:8123"
    )


def test_the_printed_lines_hold_the_revision(run: Run) -> None:
    ended = run("serve", "Qwen/Qwen2.5-32B-Instruct", "--revision", "v1")
    signal_line, check = ended.out.splitlines()[-2:]
    assert signal_line.endswith("--set model=Qwen/Qwen2.5-32B-Instruct --set revision=v1")
    assert check.endswith("--as teacher --revision v1 --verify http://HOST:8000")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("own",), "own: is not among the known models: say --as prm, teacher or judge"),
        (("own", "--as", "x"), "--as: expected one of prm, teacher, judge, got 'x'"),
        (("own", "--protocol", "pur"), "--protocol: unknown protocol 'pur', did you mean 'pure'?"),
        (
            ("Qwen/Qwen3-8B", "--memory-share", "2"),
            "--memory-share: expected a number above 0 and at most 1 or null, got 2.0",
        ),
        (
            ("Qwen/Qwen3-8B", "--start", "--host", "a b"),
            "--host: expected a host's name or IP address, or null, got 'a b'",
        ),
        (
            ("Qwen/Qwen3-8B", "--start", "--port", "70000"),
            "--port: expected a port from 1 to 65535, got 70000",
        ),
        (
            ("Qwen/Qwen3-8B", "--verify", "localhost:8000"),
            "--verify: expected an http:// or https:// address, got 'localhost:8000'",
        ),
        (
            ("Qwen/Qwen3-8B", "--start", "--verify", "http://a"),
            "--verify: checks a server that runs: leave one of the two out",
        ),
    ],
)
def test_bad_options_are_one_line(run: Run, options: tuple[str, ...], line: str) -> None:
    ended = run("serve", *options)
    assert (ended.code, ended.out, ended.err) == (1, "", f"{line}\n")


def written_commands() -> list[tuple[str, str]]:
    """The `stepcredit serve` and `vllm serve` lines of docs and recipes, with their files."""
    found = []
    places = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/**/*")]
    for path in (each for each in places if each.suffix in (".md", ".yaml")):
        text = re.sub(r"\\\n(#?\s*)", "", path.read_text())
        for line in text.splitlines():
            shown = re.search(
                r"(?:^[#$ ]*|`)((?:[A-Z_]+=\S+ )?(?:stepcredit|vllm) serve [^`]*)", line
            )
            if shown:
                found.append((str(path.relative_to(ROOT)), shown[1].strip()))
    return found


@pytest.mark.parametrize(("file", "text"), written_commands())
def test_commands_of_docs_and_recipes_are_those_that_are_printed(file: str, text: str) -> None:
    words = [word for word in shlex.split(text, comments=True) if not re.match(r"[A-Z_]+=", word)]
    words = ["Qwen/Qwen3-8B" if word == "MODEL" else word for word in words]
    if words[0] == "vllm":
        assert words == printed(words[2]), file
        return
    options = [word for word in words[1:] if word != "--start"]
    if "--verify" in options:
        at = options.index("--verify")
        del options[at : at + 2]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, f"{file}: {result.output}"
    assert result.stdout.startswith("vllm serve ")


def printed(model: str) -> list[str]:
    """The command that is printed for a model, as words."""
    result = CliRunner().invoke(app, ["serve", model])
    lines = [line for line in result.stdout.splitlines() if not line.startswith("#")]
    return shlex.split("\n".join(lines).replace("\\\n", ""))


def test_there_are_commands_in_docs_and_recipes() -> None:
    files = {file for file, _ in written_commands()}
    assert {"docs/serving.md", "recipes/pass-maths/verl.yaml", "recipes/pass-qa/README.md"} <= files
