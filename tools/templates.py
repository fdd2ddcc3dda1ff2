"""Find the templates of all sentences that the program shows, by parsing its sources.

A template is the first argument, or the hint, of an error, or the argument of `Text`; the second
argument of `reject` in the server. It is a string, one of two
strings of a conditional expression, or the name of a constant or local variable that holds one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cogvlm2_lite", "quantize", "gui")

_BASE = "CogVLM2LiteError"
_PLAIN = {
    "Text": (0,), "ApiError": (1,), "reject": (1,), "_reject": (0,), "_url_error": (0,),
    "_wrong": (0,), "field_error": (1,), "words": (0,), "marked": (0,),
}  # fmt: skip
"""Other functions that take a template, with the positions of these arguments."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """A template and its place in the sources."""

    text: str
    file: str
    line: int


class NotATemplateError(Exception):
    """A sentence is built with an f-string or a sum, so it cannot be translated."""


def find_templates(root: Path = ROOT) -> list[Template]:
    """Return every template once, in the order of the sources.

    Raises NotATemplateError for a message that is an f-string or a sum of texts.
    """
    trees = {
        file: ast.parse(file.read_text(encoding="utf-8"))
        for package in PACKAGES
        for file in sorted((root / package).rglob("*.py"))
    }
    errors = _error_names(trees.values())
    found: dict[str, Template] = {}
    for file, tree in trees.items():
        module = _Module(file.relative_to(root).as_posix(), tree, errors)
        for template in module.templates():
            found.setdefault(template.text, template)
    return list(found.values())


def places(template: str) -> set[str]:
    """Return the names of a template's places."""
    return {name for _, name, _, _ in Formatter().parse(template) if name}


def _error_names(trees: Iterator[ast.Module]) -> set[str]:
    """Return the names of all classes under CogVLM2LiteError."""
    bases = {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    names = {_BASE}
    while more := {name for name, above in bases.items() if above & names} - names:
        names |= more
    return names


class _Module:
    def __init__(self, file: str, tree: ast.Module, errors: set[str]) -> None:
        self._file = file
        self._tree = tree
        self._errors = errors
        self._values: dict[str, list[ast.expr]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if isinstance(target, ast.Name):
                        self._values.setdefault(target.id, []).append(node.value)

    def templates(self) -> Iterator[Template]:
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call):
                for argument in self._arguments(node):
                    yield from self._texts(argument, set())

    def _arguments(self, call: ast.Call) -> list[ast.expr]:
        name = ast.unparse(call.func).rpartition(".")[2]
        if name not in self._errors and name not in _PLAIN:
            return []
        found = [call.args[i] for i in _PLAIN.get(name, (0,)) if i < len(call.args)]
        return found + [k.value for k in call.keywords if k.arg in ("hint", "message")]

    def _texts(self, node: ast.expr, seen: set[str]) -> Iterator[Template]:
        match node:
            case ast.Constant(value=str(text)):
                if any(letter.isalpha() for letter in _without_places(text)):
                    yield Template(text=_plain(text), file=self._file, line=node.lineno)
            case ast.IfExp():
                yield from self._texts(node.body, seen)
                yield from self._texts(node.orelse, seen)
            case ast.BoolOp():
                for value in node.values:
                    yield from self._texts(value, seen)
            case ast.Name(id=name) if name not in seen:
                for value in self._values.get(name, []):
                    if not isinstance(value, ast.JoinedStr | ast.BinOp):
                        yield from self._texts(value, seen | {name})
            case ast.Subscript():
                yield from self._texts(node.value, seen)
            case ast.Dict():
                for value in node.values:
                    yield from self._texts(value, seen)
            case ast.JoinedStr() | ast.BinOp():
                raise NotATemplateError(f"{self._file}:{node.lineno}: {ast.unparse(node)}")


def _without_places(template: str) -> str:
    return "".join(words for words, _, _, _ in Formatter().parse(template))


def _plain(template: str) -> str:
    """Return a template as Text keeps it: without places, doubled braces are single ones."""
    return template if places(template) else template.replace("{{", "{").replace("}}", "}")
