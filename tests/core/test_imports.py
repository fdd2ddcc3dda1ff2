"""No import circle and no import upwards, also not through strings such as "module:function".

import-linter checks what Python imports, inside functions too (pyproject.toml). Here the modules
that are named by strings, or started by `python -m`, are added to the same graph.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("cogvlm2_lite", "quantize", "gui")
NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)+(:\w+)?")

Edge = tuple[str, str]

INTENDED = {
    # The command line is the one program of all three packages; it imports what was asked for.
    ("cogvlm2_lite.cli.main", "quantize.command"),
    ("cogvlm2_lite.cli.main", "quantize.merge_command"),
    ("cogvlm2_lite.cli.main", "gui.command"),
    ("cogvlm2_lite.cli.demo", "quantize.command"),
    # The window starts commands as processes, and writes a desktop entry that starts itself.
    ("gui.background.json_lines", "cogvlm2_lite.__main__"),
    ("gui.pages.about", "cogvlm2_lite.__main__"),
    ("gui.desktop_entry", "cogvlm2_lite.__main__"),
}

IMPORTERS = {"cogvlm2_lite", "cogvlm2_lite.cli.target", "gui.window"}
"""Modules that import what a string names; the strings stand in tables."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Yield every module's name and syntax tree."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def named_modules(tree: ast.AST, modules: frozenset[str]) -> Iterator[str]:
    """Yield the modules that strings name, alone or behind "-m"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.partition(":")[0]
            if NAME.fullmatch(node.value) and name in modules:
                yield name
        if isinstance(node, ast.Tuple | ast.List):
            values = [e.value if isinstance(e, ast.Constant) else None for e in node.elts]
            for option, value in pairwise(values):
                if option == "-m" and isinstance(value, str) and f"{value}.__main__" in modules:
                    yield f"{value}.__main__"


def string_edges(modules: frozenset[str]) -> set[Edge]:
    """Return which module names which other one by a string."""
    return {
        (importer, imported)
        for importer, tree in sources()
        for imported in named_modules(tree, modules)
        if imported != importer
    }


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """All imports, and the edges of strings that are not intended exceptions."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    edges = string_edges(frozenset(graph.modules))
    assert edges >= INTENDED, "an intended edge does not exist any more"
    for importer, imported in edges - INTENDED:
        graph.add_import(importer=importer, imported=imported)
    return graph


def circles(graph: grimp.ImportGraph) -> list[list[str]]:
    """Return the groups of modules that import each other (Tarjan's algorithm)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        open_.append(module)
        for other in sorted(graph.find_modules_directly_imported_by(module)):
            if other not in order:
                visit(other)
            if other in open_:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == order[module]:
            group = open_[open_.index(module) :]
            del open_[-len(group) :]
            if len(group) > 1:
                found.append(group)

    for module in sorted(graph.modules):
        if module not in order:
            visit(module)
    return found


def test_no_modules_import_each_other(graph: grimp.ImportGraph) -> None:
    assert circles(graph) == []


def test_no_packages_import_each_other(graph: grimp.ImportGraph) -> None:
    parents = {module.rpartition(".")[0] for module in graph.modules} - {""}
    found = {package: graph.nominate_cycle_breakers(package) for package in parents}
    assert {package: edges for package, edges in found.items() if edges} == {}


def test_strings_name_no_module_above(graph: grimp.ImportGraph) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (lines,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    layers = [
        grimp.Layer(*re.split(r"\s*[|:]\s*", line), independent="|" in line) for line in lines
    ]
    found = graph.find_illegal_dependencies_for_layers(layers)
    assert sorted((dep.importer, dep.imported) for dep in found) == []
    roots = ("quantize", "gui")
    upwards = [
        (module, other)
        for module in graph.modules
        if module.startswith("cogvlm2_lite")
        for other in graph.find_modules_directly_imported_by(module)
        if other.startswith(roots)
    ]
    assert upwards == []


def test_only_tables_are_imported_by_a_computed_name() -> None:
    found = {
        module
        for module, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module"
        and not isinstance(node.args[0], ast.Constant)
    }
    assert found == IMPORTERS


def test_a_circle_through_a_string_is_found() -> None:
    graph = grimp.ImportGraph()
    for module in ("a", "a.b", "a.c"):
        graph.add_module(module)
    graph.add_import(importer="a.b", imported="a.c")
    assert circles(graph) == []
    table = ast.parse('TABLE = ("a.b:main",)')
    (named,) = named_modules(table, frozenset(graph.modules))
    graph.add_import(importer="a.c", imported=named)
    assert [sorted(group) for group in circles(graph)] == [["a.b", "a.c"]]
