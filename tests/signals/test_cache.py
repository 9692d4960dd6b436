"""The cache gives back what was scored, exactly, and outlives kills and other writers."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import ClassVar

import pytest
from tests.signals.writers import Digits, texts, truth, write

from stepcredit.data.files.score_store import ScoreStore, remove_store
from stepcredit.errors import FileError, SettingError, SignalError
from stepcredit.prm.protocol import PROTOCOLS
from stepcredit.signals.cache import Cached, key_of
from stepcredit.signals.combine import Affine
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import IndexedScores, Signal
from stepcredit.signals.signal_registry import signal

ROOT = Path(__file__).parents[2]
WRITERS = 4
KILLS = 30
BETWEEN_KILLS = 10
COUNT = 10_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is not there yet."""
    return tmp_path / "scores.sqlite"


def test_second_run_asks_for_nothing(path: Path) -> None:
    responses, first, second = texts(30), Digits(), Digits()
    expected = [truth(response.text) for response in responses]
    assert Cached(first, path).scores(responses) == expected
    assert Cached(second, path).scores(responses) == expected
    assert (len(first.asked), second.asked) == (30, [])


def test_interrupted_run_goes_on_where_it_was(path: Path) -> None:
    responses = texts(30)
    stream = Cached(Digits(), path).stream(responses)
    done = {index for index, _ in (next(stream) for _ in range(12))}
    stream.close()
    rest = Digits()
    assert Cached(rest, path).scores(responses) == [truth(r.text) for r in responses]
    missing = {f"row {row}" for row in range(30)} - {f"row {row}" for row in done}
    assert set(rest.asked) == missing
    assert len(rest.asked) == 18


def test_like_responses_are_scored_once(path: Path) -> None:
    one, other = texts(2)
    responses = [one, other, replace(one, name="again"), one]
    signal = Digits()
    scores = Cached(signal, path).scores(responses)
    assert scores == [truth(r.text) for r in responses]
    assert sorted(signal.asked) == ["row 0", "row 1"]


def test_another_model_is_asked_anew(path: Path) -> None:
    responses, later = texts(3), Digits(version=2)
    Cached(Digits(), path).scores(responses)
    assert Cached(later, path).scores(responses) == [truth(r.text, 2) for r in responses]
    assert len(later.asked) == 3


@dataclass(frozen=True)
class Searched(Digits):
    """Counts how often its fields are searched for signals: one of them may be long."""

    searches: ClassVar[list[str]] = []

    @property
    def parts(self) -> tuple[Signal, ...]:
        """None."""
        self.searches.append("")
        return ()


def test_the_fields_of_a_signal_are_searched_as_often_for_many_responses(path: Path) -> None:
    counts = []
    for count in (3, 30):
        for scored in (Searched(count), Cached(Searched(count), path)):
            Searched.searches.clear()
            scored.scores(texts(count))
            counts.append(len(Searched.searches))
    assert counts[:2] == counts[2:]


@pytest.mark.parametrize(
    "scores", [[0.1, -0.0, 5e-324, 1.7976931348623157e308], [], [1 / 3, -1 / 3]]
)
def test_numbers_come_back_bit_for_bit(path: Path, scores: list[float]) -> None:
    with ScoreStore(path) as store:
        store.put(b"k", scores)
    with ScoreStore(path) as store:
        found = store.get([b"k"])[b"k"]
    assert struct.pack(f"<{len(scores)}d", *found) == struct.pack(f"<{len(scores)}d", *scores)


def test_more_keys_than_one_statement_takes(path: Path) -> None:
    keys = [row.to_bytes(4) for row in range(2345)]
    with ScoreStore(path) as store:
        for row, key in enumerate(keys):
            store.put(key, [float(row)])
        assert store.get(keys) == {key: [float(row)] for row, key in enumerate(keys)}


def test_first_scores_stay(path: Path) -> None:
    with ScoreStore(path) as store:
        store.put(b"k", [1.0])
        store.put(b"k", [2.0])
        assert store.get([b"k"]) == {b"k": [1.0]}


class Failing(Digits):
    """Fails after three responses."""

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """Three, then an error."""
        for scored in super().stream(responses):
            if len(self.asked) > 3:
                raise SignalError("the server is gone")
            yield scored


def test_failed_run_keeps_what_it_had(path: Path) -> None:
    responses, rest = texts(10), Digits()
    with pytest.raises(SignalError, match=r"\Athe server is gone\Z"):
        Cached(Failing(), path).scores(responses)
    assert Cached(rest, path).scores(responses) == [truth(r.text) for r in responses]
    assert len(rest.asked) == 7


class Short(Digits):
    """Gives one score too few."""

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """All but the last."""
        for index, scores in super().stream(responses):
            yield index, scores[:-1]


def test_scores_that_do_not_fit_are_not_kept(path: Path) -> None:
    with pytest.raises(SignalError) as caught:
        Cached(Short(), path).scores(texts(3)[1:])
    assert str(caught.value) == "row 2: 3 scores for 4 tokens"
    with ScoreStore(path) as store:
        assert store.get([key_of(Digits(), response) for response in texts(3)]) == {}


def test_removed_with_what_lies_beside(path: Path) -> None:
    store = ScoreStore(path)
    store.put(b"k", [1.0])
    assert len(list(path.parent.iterdir())) == 3
    remove_store(path)
    remove_store(path)
    assert list(path.parent.iterdir()) == []


class Grouped(Digits):
    """Depends on the other responses."""

    cacheable = False


def test_signal_of_groups_is_refused(path: Path) -> None:
    with pytest.raises(SettingError) as caught:
        Cached(Grouped(), path)
    assert str(caught.value) == "cache: the scores of digits depend on the other responses"


def damage(path: Path) -> None:
    """Change one number under its digest."""
    with sqlite3.connect(path) as base:
        base.execute("UPDATE scores SET numbers = ?", (struct.pack("<d", 0.5),))
    base.close()


def test_damaged_entry_is_told(path: Path) -> None:
    with ScoreStore(path) as store:
        store.put(b"\x01\x02", [0.25])
    damage(path)
    with ScoreStore(path) as store, pytest.raises(FileError) as caught:
        store.get([b"\x01\x02"])
    assert str(caught.value) == f"{path}: the entry 0102 is damaged; delete the file"


def no_database(path: Path) -> None:
    path.write_text("rollouts, by mistake\n" * 100)


def other_database(path: Path) -> None:
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE mine (a)")
    base.close()


def later_form(path: Path) -> None:
    ScoreStore(path).close()
    with sqlite3.connect(path) as base:
        base.execute("PRAGMA user_version = 7")
    base.close()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (no_database, "file is not a database"),
        (other_database, "not a file of stepcredit's scores"),
        (later_form, "has format 7, which this version cannot read"),
        (Path.mkdir, "is a directory"),
    ],
)
def test_foreign_file_is_refused_untouched(path: Path, make: object, reason: str) -> None:
    make(path)  # type: ignore[operator]
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(FileError) as caught:
        Cached(Digits(), path).scores(texts(1))
    assert str(caught.value) == f"{path}: {reason}"
    assert before is None or path.read_bytes() == before


def entries(path: Path) -> dict[bytes, bytes]:
    """All entries, read without our code."""
    base = sqlite3.connect(path)
    found = dict(base.execute("SELECT key, numbers FROM scores").fetchall())
    assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    base.close()
    return found


def wait_for_entries(path: Path, more: int) -> None:
    """Wait until the file has so many more entries than now."""
    until = time.monotonic() + 120
    base = sqlite3.connect(path, timeout=120)
    (before,) = base.execute("SELECT count(*) FROM scores").fetchone()
    while base.execute("SELECT count(*) FROM scores").fetchone()[0] < before + more:
        assert time.monotonic() < until
        time.sleep(0.002)
    base.close()


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> ForkServerContext:
    """Starts processes that find this folder's modules, whoever started the server of forks."""
    monkeypatch.syspath_prepend(str(ROOT))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.signals.writers"])
    return context


def test_writers_that_are_killed_leave_only_whole_and_right_entries(
    path: Path, processes: ForkServerContext
) -> None:
    """Each kill comes at any moment of a write, after others wrote for a while."""
    chance, seeds = random.Random(0), iter(range(1000))

    def writer() -> multiprocessing.process.BaseProcess:
        process = processes.Process(target=write, args=(str(path), COUNT, next(seeds)))
        process.start()
        return process

    ScoreStore(path).close()
    running = [writer() for _ in range(WRITERS)]
    for _ in range(KILLS):
        wait_for_entries(path, BETWEEN_KILLS)
        time.sleep(chance.uniform(0.0, 0.01))
        victim = running.pop(chance.randrange(WRITERS))
        assert victim.exitcode is None, "a writer ended by itself"
        victim.kill()
        victim.join()
        running.append(writer())
    for process in running:
        process.kill()
        process.join()

    responses = texts(COUNT)
    expected = {
        key_of(Digits(), r): struct.pack(f"<{len(r.text)}d", *truth(r.text)) for r in responses
    }
    found = entries(path)
    assert KILLS * BETWEEN_KILLS <= len(found) < COUNT, "some write until the last kill"
    assert all(numbers == expected[key] for key, numbers in found.items())
    rest = Digits()
    assert Cached(rest, path).scores(responses) == [truth(r.text) for r in responses]
    assert len(rest.asked) == COUNT - len(found)
    assert entries(path) == expected


def found_files(folder: str, together: Barrier) -> None:
    """Open files that are not there yet, at the same moments as other processes."""
    for number in range(20):
        together.wait(60.0)
        with ScoreStore(f"{folder}/{number}.sqlite") as store:
            store.put(b"k", [float(number)])


def test_processes_that_make_one_file_at_once_agree(
    tmp_path: Path, processes: ForkServerContext
) -> None:
    arguments = (str(tmp_path), processes.Barrier(WRITERS))
    running = [processes.Process(target=found_files, args=arguments) for _ in range(WRITERS)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0] * WRITERS
    for number in range(20):
        with ScoreStore(tmp_path / f"{number}.sqlite") as store:
            assert store.get([b"k"]) == {b"k": [float(number)]}


def test_scores_kept_by_an_earlier_version_are_found_again() -> None:
    """The identities that are part of a key, as they were before their modules moved."""
    protocol = PROTOCOLS.build("pure").identity
    assert protocol["class"] == "stepcredit.signals.prm.protocols:PurePRM"
    mapped = Affine(signal=signal("equations"), scale=2.0).identity
    assert (mapped["map"], mapped["cacheable"]) == ("Affine", True)
