"""Write constraints.txt: the versions that are installed here. python tools/write_constraints.py

Run it in an environment with the extra dev in which all checks have passed. It lists the
requirements of the project and its extras, and the requirements of those packages. It leaves
out CUDA packages and local parts of versions (torch 2.13.0+cpu), so that the file serves CPU and
CUDA builds.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "constraints.txt"
LEFT_OUT = ("nvidia-", "cuda-", "triton")
"""Beginnings of names that only the CUDA build of torch brings."""

_HEADER = """\
# The versions that the checks last passed with: pip install -c constraints.txt -e ".[dev]"
# Written by `python tools/write_constraints.py`.
"""


def main() -> None:
    """Write the file."""
    versions = dict(installed(project_requirements()))
    rows = [f"{name}=={versions[name]}" for name in sorted(versions)]
    TARGET.write_text(_HEADER + "\n".join(rows) + "\n", encoding="utf-8")


def project_requirements() -> list[Requirement]:
    """Return the requirements in pyproject.toml, including all extras and the build system."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = content["project"]
    groups = [content["build-system"]["requires"], project["dependencies"]]
    groups += project["optional-dependencies"].values()
    return [Requirement(line) for group in groups for line in group]


def installed(requirements: list[Requirement]) -> Iterator[tuple[str, str]]:
    """Yield (name, version) of requirements and of all that they require, if installed."""
    waiting, seen = list(requirements), set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name.startswith(LEFT_OUT) or (name, *wanted.extras) in seen:
            continue
        seen.add((name, *wanted.extras))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        yield name, Version(found.version).public
        for line in found.requires or ():
            needed = Requirement(line)
            extras = ("", *wanted.extras)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(needed)


if __name__ == "__main__":
    main()
