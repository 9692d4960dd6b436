"""Fails where a public name has no docstring, or no place in the API reference.

    python tools/check_docs.py site

The reference's own index, `objects.inv`, says which names the built site documents.
"""

from __future__ import annotations

import sys
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

from docs_hooks import is_documented

PUBLIC = (
    "stepcredit",
    "stepcredit.credit.metrics",
    "stepcredit.credit.stages",
    "stepcredit.credit.theory",
    "stepcredit.data.files",
    "stepcredit.engines.trl",
    "stepcredit.evals",
    "stepcredit.prm",
    "stepcredit.prm.training",
    "stepcredit.rewards",
    "stepcredit.signals",
)
"""The modules whose `__all__` is the public interface."""


def documented(site: Path) -> set[str]:
    """All names of the site's index."""
    content = (site / "objects.inv").read_bytes()
    body = content.split(b"\n", 4)[4]
    return {line.split(" ")[0] for line in zlib.decompress(body).decode().splitlines()}


def public_names() -> dict[str, Any]:
    """Every public class and function, by the name under which a user imports it."""
    found = {}
    for module in map(import_module, PUBLIC):
        for name in module.__all__:
            thing = getattr(module, name)
            if is_documented(thing):
                found[f"{module.__name__}.{name}"] = thing
    return found


def main() -> None:
    """Print what is missing, and end with exit code 1 where anything is."""
    index, names = documented(Path(sys.argv[1])), public_names()
    missing = [
        f"{path}: not in the reference"
        for path, thing in names.items()
        if not {path, f"{thing.__module__}.{thing.__qualname__}"} & index
    ]
    missing += [f"{path}: no docstring" for path, thing in names.items() if not thing.__doc__]
    print("\n".join(missing) or f"all {len(names)} public names are in the reference")
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
