"""Every dependency has its reason in docs/dependencies.md and its version in constraints.txt."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
ASKED = [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]
GPU_ONLY = {"xformers", "nvidia-cuda-nvrtc"}
"""The checks run on a CPU, so no version of these is known to pass."""


def names(lines: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


def documented(heading: str) -> set[str]:
    """The packages in the first column of the table below a heading."""
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)
    return {canonicalize_name(name) for cell in cells for name in re.findall("`([^`]+)`", cell)}


def test_the_page_has_the_default_install() -> None:
    assert documented("Default install") == names(PROJECT["dependencies"])


def test_the_page_has_every_package_of_an_extra() -> None:
    asked = {name for lines in EXTRAS.values() for name in names(lines)}
    asked |= names(PYPROJECT["build-system"]["requires"])
    assert documented("Extras") | documented("Only for development") == asked


def test_what_is_not_used_is_not_asked_for() -> None:
    assert documented("Not used") & names(ASKED) == set()


def test_the_constraints_allow_what_the_project_asks_for() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    for line in ASKED:
        wanted = Requirement(line)
        name = canonicalize_name(wanted.name)
        if name not in GPU_ONLY:
            assert wanted.specifier.contains(pins[name]), f"{line} and {name}=={pins[name]}"


def test_the_constraints_serve_builds_for_every_device() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "nvidia" not in text
    assert "+" not in text  # a local version such as 2.13.0+cpu
