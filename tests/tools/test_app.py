"""The built application's beginning, run by Python, and what the build leaves out."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tools.build_app import LEFT_OUT, OURS

ROOT = Path(__file__).parents[2]
ENTRY = [sys.executable, str(ROOT / "tools" / "app_entry.py")]


@pytest.mark.parametrize("arguments", [["--version"], ["-P", "-m", "cogvlm2_lite", "--version"]])
def test_it_is_the_command_and_any_module_that_the_program_starts(arguments: list[str]) -> None:
    done = subprocess.run(
        [*ENTRY, *arguments], capture_output=True, text=True, check=True, cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.startswith("cogvlm2-lite 0.")


def test_its_fault_is_the_commands_fault() -> None:
    done = subprocess.run([*ENTRY, "no-such-command"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no-such-command" in done.stderr


def test_nothing_that_is_left_out_is_imported() -> None:
    for package in OURS:
        for file in (ROOT / package).rglob("*.py"):
            if file.parent == ROOT / "cogvlm2_lite" / "hf":  # for programs that have transformers
                continue
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                assert not {name.partition(".")[0] for name in names} & set(LEFT_OUT), file
