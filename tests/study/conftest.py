"""A store of invented runs, for the page and for verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from stepcredit.study.study_data import StudyData


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of invented runs of `main` and `own`, in which the sum form collapses."""
    from tests.study.fake_store import GAINS, fill_store

    from stepcredit.study.study_presets import find_preset

    found = tmp_path_factory.mktemp("page") / "study.sqlite"
    for name in ("main", "own"):
        fill_store(found, find_preset(name, None), GAINS, collapse="pure-sum")
    return found


@pytest.fixture(scope="session")
def data(path: Path) -> StudyData:
    """The runs of that store."""
    from stepcredit.study.study_data import StudyData
    from stepcredit.study.study_store import StudyStore

    with StudyStore(path) as store:
        return StudyData(store)
