"""What code that escaped into a grading process can still do: each attempt, by a grader that runs
its answers as Python."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepcredit.rewards.workers import Pool

GRADER = '''
"""Runs the answer as Python with the gold answer as `target`; R if `done` is true at the end."""
import json, os
from stepcredit.rewards.serving import Grader
state = {{}}

class Escaped(Grader):
    process_per_item = {apart}
    trial = ("done = True", "")

    def prepare(self):
        __import__("socket")

    def verdict(self, answer, gold):
        names = {{"state": state, "target": gold}}
        try:
            exec(answer, names)
        except BaseException as error:
            return "W"
        return "R" if names.get("done") else "W"

GRADER = Escaped()
'''
LINUX = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
needs_walls = pytest.mark.skipif(not LINUX, reason="the system has no seccomp filter")


def landlock() -> bool:
    from stepcredit.rewards import sandbox

    return sandbox._landlock_version() >= 1


needs_landlock = pytest.mark.skipif(not landlock(), reason="the kernel has no Landlock")


@pytest.fixture(params=[True, False], ids=["process per item", "one process"])
def pool(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pool]:
    modules = tmp_path / "modules"
    modules.mkdir()
    name = f"escaped_{'apart' if request.param else 'together'}"
    (modules / f"{name}.py").write_text(GRADER.format(apart=request.param))
    monkeypatch.syspath_prepend(modules)
    monkeypatch.setenv("SOME_API_KEY", "sk-secret")
    made = Pool(name, 1)
    yield made
    made.close()


def attempt(pool: Pool, code: str, target: object = "") -> str:
    """`R` where the code ran to its end with `done` true, after a check that the pool works."""
    letters = pool.verdicts([("done = 1 + 1 == 2", ""), (code, str(target))], 20.0)
    assert letters[0] == "R"
    return letters[1]


ENVIRONMENT = """
import os
done = not any("secret" in value or "KEY" in name for name, value in os.environ.items())
"""


def test_the_environment_holds_no_secret(pool: Pool) -> None:
    assert attempt(pool, ENVIRONMENT) == "R"


def test_the_working_folder_is_a_scratch_folder(pool: Pool) -> None:
    code = "import os; done = os.path.basename(os.getcwd()).startswith('stepcredit-grader-')"
    assert attempt(pool, code) == "R"


WRITES = {
    "a new file": "open(target, 'w').write('x'); done = True",
    "a new file by number": "import os; os.open(target, os.O_CREAT | os.O_WRONLY); done = True",
    "an old file": "open(target + '.old', 'a').write('x'); done = True",
    "a file without a name": "import os; os.open(os.path.dirname(target), os.O_TMPFILE | os.O_RDWR)"
    "; done = True",
    "a file in the scratch folder": "open('here', 'w'); done = True",
    "a folder": "import os; os.mkdir(target); done = True",
    "removing": "import os; os.remove(target + '.old'); done = True",
    "renaming": "import os; os.rename(target + '.old', target); done = True",
    "a link": "import os; os.symlink('x', target); done = True",
    "a hard link": "import os; os.link(target + '.old', target); done = True",
    "rights": "import os; os.chmod(target + '.old', 0o777); done = True",
    "truncating": "import os; os.truncate(target + '.old', 0); done = True",
    "times": "import os; os.utime(target + '.old', (0, 0)); done = True",
}


@needs_walls
@pytest.mark.parametrize("way", WRITES)
def test_no_file_is_touched(way: str, pool: Pool, tmp_path: Path) -> None:
    target, old = tmp_path / "target", tmp_path / "target.old"
    old.write_text("old")
    before = old.stat()
    assert attempt(pool, WRITES[way], target) == "W"
    assert not target.exists()
    assert old.read_text() == "old"
    assert (old.stat().st_mode, old.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


PROCESSES = {
    "fork": "import os; pid = os.fork(); done = True",
    "spawn": "import os; os.posix_spawn('/bin/true', ['true'], {}); done = True",
    "system": "import os; done = os.system('true') == 0",
    "exec": "import os; os.execv('/bin/sh', ['sh', '-c', 'exit 0'])",
    "a thread": "import threading; threading.Thread(target=int).start(); done = True",
    "the parent's memory": "import os; open(f'/proc/{os.getppid()}/mem', 'rb').read(1)"
    "; done = True",
    "a signal to the parent": "import os; os.kill(os.getppid(), 0); done = True",
    "a signal to the tester": "import os; os.kill(int(target), 0); done = True",
    "a session": "import os; os.setsid(); done = True",
    "owner of a signal": "import fcntl; fcntl.fcntl(0, fcntl.F_SETOWN, int(target)); done = True",
    "new limits": "import resource as r; r.setrlimit(r.RLIMIT_CPU, (99, 99)); done = True",
    "namespaces": "import ctypes; done = ctypes.CDLL(None).unshare(0x10000000) == 0",
    "ptrace": "import ctypes; done = ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0",
    "reading memory": "import ctypes; done = ctypes.CDLL(None).process_vm_readv("
    "int(target), None, 0, None, 0, 0) == 0",
    "io_uring": "import ctypes; done = ctypes.CDLL(None).syscall(425, 1, None) >= 0",
    "a call of tomorrow": "import ctypes; done = ctypes.CDLL(None).syscall(463) >= 0",
}


@needs_walls
@pytest.mark.parametrize("way", PROCESSES)
def test_no_process_is_started_or_touched(way: str, pool: Pool) -> None:
    assert attempt(pool, PROCESSES[way], os.getpid()) in "WT"
    assert pool.verdicts([("done = True", "")], 20.0) == "R"


@needs_walls
def test_no_network(pool: Pool) -> None:
    code = """
import socket
host, port = target.split(":")
socket.create_connection((host, int(port)), timeout=5).sendall(b"secret")
done = True
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        assert attempt(pool, code, f"127.0.0.1:{port}") == "W"
        with pytest.raises(TimeoutError):
            server.accept()


@needs_walls
@needs_landlock
@pytest.mark.parametrize("name", ["secret.txt", ".env"])
def test_the_user_s_files_cannot_be_read(name: str, pool: Pool, tmp_path: Path) -> None:
    (tmp_path / name).write_text("secret")
    assert attempt(pool, "done = open(target).read() == 'secret'", tmp_path / name) == "W"
    assert attempt(pool, "import os; done = os.listdir(target)", tmp_path) == "W"
    code = "done = b'sk-secret' in open(f'/proc/{target}/environ', 'rb').read()"
    assert attempt(pool, code, os.getpid()) == "W"


def test_memory_is_limited(pool: Pool) -> None:
    assert attempt(pool, "x = bytes(3 << 30); done = True") in "WT"


def test_cpu_time_is_limited(pool: Pool) -> None:
    assert pool.verdicts([("while True: pass", ""), ("done = True", "")], 1.0) == "TR"


def test_one_item_does_not_change_the_next(pool: Pool) -> None:
    """True where each item has a process of its own, which is why evaluating graders do."""
    pairs = [("state['known'] = 1", ""), ("done = 'known' in state", "")]
    apart = "apart" in pool._grader
    assert pool.verdicts(pairs, 20.0) == ("WW" if apart else "WR")


FORGERIES = """
import os
for number in range(3, 5000):
    try:
        os.write(number, b"RRRRRRRRRRRRRRRR")
    except OSError:
        pass
"""


@pytest.mark.parametrize("held", [0, 200])
def test_one_item_does_not_grade_the_next(held: int, pool: Pool) -> None:
    """Also where this process holds so many descriptors that the socket's number is a high one."""
    if "apart" not in pool._grader:
        pytest.skip("graders that evaluate text have a process per item")
    holds = [os.open(os.devnull, os.O_RDONLY) for _ in range(held)]
    try:
        pairs = [(FORGERIES, ""), *[("done = False", "")] * 5]
        assert pool.verdicts(pairs, 20.0)[1:] == "WWWWW"
    finally:
        for handle in holds:
            os.close(handle)


@pytest.mark.parametrize("words", [b"\xff", b"Z", b"+", b"R" * 40])
def test_what_an_item_writes_to_the_socket_ends_its_worker(words: bytes, pool: Pool) -> None:
    """Each item is graded again by another worker, and the answers of the next batch are right."""
    code = f"import os; os.write(3, {words!r})"
    letters = pool.verdicts([("done = True", ""), (code, "")], 20.0)
    assert letters[0] == "R"
    assert letters[1] in "WTR"
    assert pool.verdicts([("done = False", "")] * 3, 20.0) == "WWW"


def test_a_killed_trainer_takes_its_processes_along(pool: Pool, tmp_path: Path) -> None:
    """A grading process that sleeps ends with the process that started it."""
    script = tmp_path / "trainer.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(tmp_path / 'modules')!r})\n"
        "from stepcredit.rewards.workers import Pool\n"
        f"pool = Pool({pool._grader!r}, 1)\n"
        "pool.verdicts([('done = True', '')], 20.0)\n"
        "print(pool._idle[0]._process.pid, flush=True)\n"
        "pool.verdicts([('import time; time.sleep(60)', '')], 60.0)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True
    ) as trainer:
        assert trainer.stdout is not None
        worker = int(trainer.stdout.readline())
        trainer.kill()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{worker}").exists()


@needs_walls
@needs_landlock
def test_a_script_s_folder_is_not_readable(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of a script is on the import path, and may be one's home."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "secret.txt").write_text("secret")
    assert attempt(pool, "done = open(target).read() == 'secret'", tmp_path / "secret.txt") == "W"


def test_the_filter_allows_what_grading_needs() -> None:
    """The system calls that are listed for both processors are the same but for older names."""
    from stepcredit.rewards.syscalls import _NUMBERS

    only_one = {name for name, numbers in _NUMBERS.items() if None in numbers}
    older = {"stat", "lstat", "access", "readlink", "dup2", "poll", "select", "epoll_wait", "time"}
    assert only_one == older | {"arch_prctl"}
