"""What a stopped command had done, kept beside its output for the next run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stepcredit.cli.told import say
from stepcredit.errors import RolloutError


@contextmanager
def journal_beside(output: str, done: str) -> Iterator[Path | None]:
    """A file for what is `done` ("scored"), gone once the output is written.

    None where the output has no folder of its own, such as standard output.
    """
    from stepcredit.data.atomic import folder_of, hidden_name
    from stepcredit.data.store import remove_store

    if folder_of(output) is None:
        yield None
        return
    journal = Path(output).with_name(hidden_name(Path(output).name, f"{done}.sqlite"))
    try:
        yield journal
    except BaseException as error:
        if not _holds_some(journal):
            remove_store(journal)
        elif not isinstance(error, RolloutError):  # a bad row is told in one line
            say(f"what was {done} is kept in {journal}: run the same command to go on")
        raise
    remove_store(journal)


def _holds_some(journal: Path) -> bool:
    from stepcredit.data.store import ScoreStore

    if not journal.exists():
        return False
    with ScoreStore(journal) as store:
        return len(store) > 0
