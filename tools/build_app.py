"""Build an application folder that needs no Python: python tools/build_app.py DEST

Needs `pip install pyinstaller` and the project with its extras gui and server. Writes
DEST/cogvlm2-lite/ with the program cogvlm2-lite, for the system that it is built on. See
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
"""All their modules and files are included: commands and pages are imported by name at run time."""

LIBRARIES_BY_PATH = ("bitsandbytes", "tokenizers")
"""Packages that open their own libraries by path, which PyInstaller cannot see."""

VERSIONS = (
    NAME, "torch", "bitsandbytes", "tokenizers", "safetensors", "numpy", "pillow", "psutil",
    "platformdirs", "filelock", "PySide6_Essentials", "starlette", "uvicorn",
)  # fmt: skip
"""`doctor` and the About page read these versions from the packages' metadata."""

LEFT_OUT = (
    "transformers", "accelerate", "pytest", "hypothesis", "mypy", "playwright", "schemathesis",
    "openai", "tkinter", "IPython", "matplotlib",
)  # fmt: skip
"""Perhaps installed and imported somewhere, but never used by the program."""


def main() -> int:
    """Build the folder; return the exit code of PyInstaller."""
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
    for package in (*LIBRARIES_BY_PATH, "cogvlm2_lite.weights.kernels"):
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
