"""A library that calls C's exit(), as bitsandbytes does, does not end a program without a word."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cogvlm2_lite.backends.exit_message import MESSAGE

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such registration")

_BEGINNING = """
import ctypes, sys, threading
from cogvlm2_lite.backends.exit_message import explain_sudden_end
explain_sudden_end()
explain_sudden_end()
"""


def run(*lines: str) -> tuple[int, str]:
    code = "\n".join([_BEGINNING, *lines])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "sudden",
    [
        "ctypes.CDLL(None).exit(1)",  # without Python's lock, as in an operation of torch
        "ctypes.PyDLL(None).exit(1)",
        "threading.Thread(target=lambda: ctypes.CDLL(None).exit(1)).start()",
    ],
)
def test_a_sudden_end_is_explained(sudden: str) -> None:
    assert run(sudden) == (1, MESSAGE)


@pytest.mark.parametrize(("ordinary", "code"), [("", 0), ("sys.exit(3)", 3)])
def test_an_ordinary_end_has_no_message(ordinary: str, code: int) -> None:
    assert run(ordinary) == (code, "")
