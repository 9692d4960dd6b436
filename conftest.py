"""What pytest leaves alone: modules that import verl, where it is not installed."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

ENGINES = Path(__file__).parent / "src" / "stepcredit" / "engines" / "verl"
IMPORT = re.compile(r"^\s*(import|from) verl\b", re.MULTILINE)

collect_ignore = [
    str(path)
    for path in ENGINES.glob("*.py")
    if find_spec("verl") is None and IMPORT.search(path.read_text())
]
