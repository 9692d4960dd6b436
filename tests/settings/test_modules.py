"""Modules that a setting names: a file or a dotted name, and one clear line where it fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stepcredit.errors import SettingError
from stepcredit.settings.modules import import_named, object_named


@pytest.fixture(autouse=True)
def forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test imports is forgotten after it, and the working folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_a_file_is_the_module_of_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "my_own_rewards.py").write_text("def double(x): return 2 * x\n")
    (module,) = import_named(str(folder / "my_own_rewards.py"))
    assert (module.__name__, module.double(3)) == ("my_own_rewards", 6)
    assert object_named("my_own_rewards:double")(4) == 8
    assert str(folder) not in sys.path


def test_a_file_runs_once_however_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "my-counted.py").write_text("print('ran')\n")
    (tmp_path / "counted_too.py").write_text("number = []\n")
    first = import_named(["my-counted.py", "./my-counted.py", str(tmp_path / "my-counted.py")])
    assert [module.__name__ for module in first] == ["my_counted"] * 3
    assert first[0] is first[1] is first[2]
    dotted, by_file = import_named(["counted_too", "counted_too.py"])
    assert dotted is by_file


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("none.py", None, "none.py: no such file"),
        ("none_such", None, "none_such: No module named 'none_such'"),
        ("json.py", "", "json.py: another module is called 'json': rename the file"),
        ("torn.py", "a = 1\nb = (\n", "torn.py: line 2: SyntaxError: '(' was never closed"),
        ("failing.py", "\n\nraise ValueError('no\\nway')", "failing.py: line 3: "
         "ValueError: no way"),
        ("failing_too", "import json\nassert False", "failing_too: line 2: AssertionError"),
        ("wants.py", "import none_such", "wants.py: line 1: ModuleNotFoundError: No module named "
         "'none_such'"),
        ("inner.py", "import json\n\njson.loads('[')", "inner.py: line 3: JSONDecodeError: "
         "Expecting value: line 1 column 2 (char 1)"),
        ("ends.py", "import sys\nsys.exit(3)", "ends.py: line 2: SystemExit: 3"),
        (7, None, "7: expected the name or the file of a module"),
    ],
)  # fmt: skip
def test_what_fails_is_one_line(name: str | int, text: str | None, line: str) -> None:
    if text is not None:
        Path(str(name).removesuffix(".py") + ".py").write_text(text)
    with pytest.raises(SettingError) as refused:
        import_named([name])  # type: ignore[list-item]
    assert str(refused.value) == line
    assert str(name).removesuffix(".py") not in set(sys.modules) - {"json"}
