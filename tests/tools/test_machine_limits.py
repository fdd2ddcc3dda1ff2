"""benchmarks/machine_limits.py: what it prints without a compiler, and rates that are possible."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest

from benchmarks.machine_limits import Limits


def test_without_a_compiler_a_sentence_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"No C compiler was found\. Install gcc"):
        Limits(tmp_path)


def test_a_source_that_does_not_compile_is_a_sentence_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'no such header' >&2\nexit 1\n", encoding="utf-8")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"needs Linux on x86-64:\nno such header"):
        Limits(tmp_path)


@pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.system() != "Linux" or shutil.which("cc") is None,
    reason="needs a C compiler and Linux on x86-64",
)
def test_rates_from_registers_are_those_of_the_instructions_that_exist(tmp_path: Path) -> None:
    found = Limits(tmp_path).measure(only_registers=True)
    assert {"avx2", "float32"} <= set(found)
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    for name, flag in (("amx-bf16", "amx_bf16"), ("avx512-vnni", "avx512_vnni")):
        if flag not in flags:
            assert name not in found
    # Two instructions of 8 numbers per cycle, and no processor has a clock above 10 GHz.
    assert 0 < found["float32"]["registers"] < 160
