"""Tries an installed stepcredit, from a folder that holds no checkout of it.

    python tools/installed.py README.md

Run by `make test-wheel` in an environment that holds the wheel and nothing else of ours.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from importlib import metadata, resources
from pathlib import Path


def main() -> None:
    """Check the package's files and version, run the README's first example and the command."""
    readme = Path(sys.argv[1]).resolve()
    checkout = readme.parent
    with tempfile.TemporaryDirectory() as folder:
        code = re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)[0]
        command = Path(sys.executable).with_name("stepcredit")
        run([sys.executable, "-c", code], folder)
        run([str(command), "--help"], folder)
        run([str(command), "methods"], folder)
    import stepcredit

    place = Path(stepcredit.__file__).resolve()
    assert checkout not in place.parents or "site-packages" in place.parts, place
    assert metadata.version("stepcredit") == stepcredit.__version__
    assert resources.files("stepcredit").joinpath("py.typed").is_file()
    about = metadata.metadata("stepcredit")
    for field in ("Summary", "License-Expression", "Requires-Python", "Classifier", "Project-URL"):
        assert about.get_all(field), field
    print(f"stepcredit {stepcredit.__version__} works as installed")


def run(command: list[str], folder: str) -> None:
    """Run a command; its output is shown where it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        sys.exit(f"{command} ended with {done.returncode}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
