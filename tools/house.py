"""Figures of a package's source: sizes, docstrings, names used twice, import circles.

    python tools/house.py                   # stepcredit
    python tools/house.py path/to/package   # any other, by the same rules
    python tools/house.py --check           # exit code 1 where stepcredit breaks a rule of its own

The rules of `--check`: no public function or class name is defined in two modules, no import circle
(imports inside functions and for type checking counted), no module is hidden by another thing of
its name in its package, no two modules have one file name, and no `getattr` on an estimator.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import networkx

OURS = Path(__file__).resolve().parents[1] / "src" / "stepcredit"
SAME_FILE_NAME = {"__init__", "__main__", "trainer"}
"""File names that several folders may have: Python's own, and that of an engine's trainer class."""
ESTIMATOR_PROBES = re.compile(
    r"\b(?:get|has)attr\((?:(?:(?:self|trainer)\.)?(?:estimator|fused)\b|method,)"
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Module:
    """One parsed file."""

    name: str
    path: Path
    tree: ast.Module
    text: str

    @property
    def is_package(self) -> bool:
        """Whether it is a folder's `__init__`."""
        return self.path.stem == "__init__"

    @property
    def is_private(self) -> bool:
        """Whether a part of its name begins with an underscore."""
        return any(part.startswith("_") for part in self.name.split("."))


@dataclass
class Figures:
    """What was measured of one package."""

    lines: int = 0
    modules: int = 0
    code_lines: list[int] = field(default_factory=list)
    public: int = 0
    documented: int = 0
    returns: int = 0
    public_functions: int = 0
    small_helpers: int = 0
    small_helpers_once: int = 0
    shared: dict[str, list[str]] = field(default_factory=dict)
    circles: list[list[str]] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    same_file: dict[str, list[str]] = field(default_factory=dict)
    probes: list[str] = field(default_factory=list)

    def rows(self) -> Iterator[tuple[str, str]]:
        """The figures, each with its name."""
        sizes = self.code_lines or [0]
        yield "lines", f"{self.lines:,} in {self.modules} modules"
        yield "functions", f"{len(self.code_lines):,}, median of {median(sizes):.0f} code lines"
        yield "functions within 20 code lines", share(sum(size <= 20 for size in sizes), len(sizes))
        yield "public names with a docstring", share(self.documented, self.public)
        yield "public functions with a return type", share(self.returns, self.public_functions)
        once = share(self.small_helpers_once, self.small_helpers)
        yield "private functions within 5 code lines", f"{self.small_helpers}, used once: {once}"
        yield "public names in more than one module", counted(self.shared)
        yield "import circles", counted(map(" -> ".join, self.circles))
        yield "modules hidden by another name", counted(self.hidden)
        yield "file names in more than one folder", counted(self.same_file)
        yield "getattr on an estimator", counted(self.probes)

    @property
    def broken(self) -> bool:
        """Whether one of the rules of `--check` is broken."""
        return any((self.shared, self.circles, self.hidden, self.same_file, self.probes))


def measure(package: Path) -> Figures:
    """The figures of a package.

    Args:
        package: its folder, which holds an `__init__.py`.
    """
    modules = list(modules_of(package))
    functions = [node for module in modules for node in functions_of(module.tree)]
    found = Figures(
        lines=sum(module.text.count("\n") for module in modules),
        modules=len(modules),
        code_lines=[code_lines(node) for node in functions],
        shared=shared_names(modules),
        circles=circles(modules),
        hidden=hidden_modules(modules),
        same_file=same_file_names(modules),
        probes=[m.name for m in modules for _ in ESTIMATOR_PROBES.findall(m.text)],
    )
    for module in modules:
        for node in public_nodes(module):
            found.public += 1
            found.documented += ast.get_docstring(node) is not None
            if isinstance(node, Function):
                found.public_functions += 1
                found.returns += node.returns is not None
    uses = Counter(
        node.id if isinstance(node, ast.Name) else node.attr
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Name | ast.Attribute)
    )
    small = [f.name for f in functions if is_helper(f.name) and code_lines(f) <= 5]
    found.small_helpers = len(small)
    found.small_helpers_once = sum(uses[name] == 1 for name in small)
    return found


def modules_of(package: Path) -> Iterator[Module]:
    """Every module below a folder, parsed."""
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        text = path.read_text()
        name = ".".join(part for part in parts if part != "__init__")
        yield Module(name, path, ast.parse(text), text)


def functions_of(tree: ast.Module) -> Iterator[Function]:
    """Every function and method of a module."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def is_helper(name: str) -> bool:
    """Whether a function is private, and none of Python's own methods."""
    return name.startswith("_") and not name.startswith("__")


def public_nodes(module: Module) -> Iterator[Function | ast.ClassDef]:
    """The public functions and classes at a module's top level, and the public methods in them."""
    if module.is_private:
        return
    for node in definitions(module):
        yield node
        body = node.body if isinstance(node, ast.ClassDef) else []
        yield from (n for n in body if isinstance(n, Function) and not n.name.startswith("_"))


def definitions(module: Module) -> Iterator[Function | ast.ClassDef]:
    """The public functions and classes that a module defines at its top level."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return (n for n in module.tree.body if isinstance(n, kinds) and not n.name.startswith("_"))


def code_lines(node: Function) -> int:
    """Lines of a function's body that hold code: no docstring, no blank line, no comment."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    lines = {n.lineno for top in body for n in ast.walk(top) if hasattr(n, "lineno")}
    return len(lines)


def shared_names(modules: list[Module]) -> dict[str, list[str]]:
    """Public names that several modules define, with the modules."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        for name in {node.name for node in definitions(module)}:
            places[name].append(module.name)
    return {name: found for name, found in sorted(places.items()) if len(found) > 1}


def imports_of(module: Module, known: set[str]) -> Iterator[str]:
    """The package's own modules that a module imports anywhere in it."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, module)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                if inner in known or base in known:
                    yield inner if inner in known else base


def absolute(node: ast.ImportFrom, module: Module) -> str:
    """The full name of what an import imports from, also where it is relative."""
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    up = node.level - module.is_package
    return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])


def circles(modules: list[Module]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others."""
    known = {module.name for module in modules}
    graph = networkx.DiGraph()
    for module in modules:
        graph.add_edges_from((module.name, other) for other in imports_of(module, known))
    graph.remove_edges_from(list(networkx.selfloop_edges(graph)))
    return [sorted(part) for part in networkx.strongly_connected_components(graph) if len(part) > 1]


def hidden_modules(modules: list[Module]) -> list[str]:
    """Modules whose package binds their name to something else."""
    known = {module.name for module in modules}
    found = []
    for package in (module for module in modules if module.is_package):
        names = {node.name for node in definitions(package)}
        for node in ast.walk(package.tree):
            if isinstance(node, ast.ImportFrom) and absolute(node, package) != package.name:
                names |= {alias.asname or alias.name for alias in node.names}
        found += sorted(f"{package.name}.{name}" for name in names)
    return [name for name in found if name in known]


def same_file_names(modules: list[Module]) -> dict[str, list[str]]:
    """File names that several folders have."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        if module.path.stem not in SAME_FILE_NAME:
            places[module.path.stem].append(module.name)
    return {name: found for name, found in sorted(places.items()) if len(found) > 1}


def share(part: int, whole: int) -> str:
    """A part of a whole in percent."""
    return f"{part / whole:.1%}" if whole else "none"


def counted(found: object) -> str:
    """How many there are, and which."""
    items = found.items() if isinstance(found, dict) else found
    names = [f"{i[0]} ({', '.join(i[1])})" if isinstance(i, tuple) else str(i) for i in items]  # type: ignore[attr-defined]
    return "; ".join([str(len(names)), *names])


def main() -> None:
    """Print the figures; with `--check`, end with exit code 1 where a rule is broken."""
    given = [word for word in sys.argv[1:] if word != "--check"]
    figures = measure(Path(given[0]) if given else OURS)
    for name, value in figures.rows():
        print(f"{name + ':':42}{value}")
    if "--check" in sys.argv and figures.broken:
        sys.exit(1)


if __name__ == "__main__":
    main()
