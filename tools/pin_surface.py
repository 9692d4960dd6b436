"""Writes the public surface as it is now into the file that a test compares it with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.test_facade import PINNED, signature_of  # noqa: E402

import stepcredit as sc  # noqa: E402

if __name__ == "__main__":
    surface = {name: signature_of(name) for name in sorted(sc.__all__)}
    PINNED.write_text(json.dumps(surface, indent=2) + "\n")
