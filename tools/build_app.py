"""Build an application folder that needs no Python: python tools/build_app.py DEST

Needs `pip install pyinstaller` beside the project with its extras gui and server. DEST becomes
DEST/cogvlm2-lite/ with the program cogvlm2-lite in it, for the system that it is built on. See
docs/desktop.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "cogvlm2-lite"

OURS = ("cogvlm2_lite", "quantize", "gui")
"""All their modules and files: commands, storage kinds and pages are found by name as it runs."""

LIBRARIES_BESIDE = ("bitsandbytes", "tokenizers")
"""They open libraries of theirs by path, which no import shows."""

VERSIONS = (
    NAME, "torch", "bitsandbytes", "tokenizers", "safetensors", "numpy", "pillow", "psutil",
    "platformdirs", "filelock", "PySide6_Essentials", "starlette", "uvicorn",
)  # fmt: skip
"""`doctor` and the page About read these versions from the packages' metadata."""

LEFT_OUT = (
    "transformers", "accelerate", "pytest", "hypothesis", "mypy", "playwright", "schemathesis",
    "openai", "tkinter", "IPython", "matplotlib",
)  # fmt: skip
"""Installed perhaps, named somewhere, and never used by the program."""


def main() -> int:
    """Build it; gives the exit code of PyInstaller."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("destination", type=Path)
    destination = parser.parse_args().destination.resolve()
    options = [
        "--noconfirm", "--onedir", "--name", NAME, "--paths", str(ROOT),
        "--distpath", str(destination),
        "--workpath", str(destination / "work"), "--specpath", str(destination / "work"),
    ]  # fmt: skip
    for package in OURS:
        options += ["--collect-submodules", package, "--collect-data", package]
    for package in (*LIBRARIES_BESIDE, "cogvlm2_lite.weights.kernels"):
        options += ["--collect-binaries", package]
    for package in VERSIONS:
        options += ["--copy-metadata", package]
    for module in LEFT_OUT:
        options += ["--exclude-module", module]
    entry = str(ROOT / "tools" / "app_entry.py")
    command = [sys.executable, "-m", "PyInstaller", *options, entry]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
