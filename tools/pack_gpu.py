"""Pack what another machine needs to run benchmarks/gpu.sh, and add up what travels.

    python tools/pack_gpu.py                     for Python 3.12 and CUDA 13.0 on Linux x86-64
    python tools/pack_gpu.py --python 3.11 --cuda 128
    python tools/pack_gpu.py --wheels FOLDER     from wheels that are there already, no download

A rented machine often has torch but no network, and limits what may be copied to it. bitsandbytes
is 43 MB, because it has a library for each version of CUDA; only one of them is packed, with its
library for the CPU. The packages are written to build/gpu-packages, which git ignores.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "build" / "gpu-packages"
MOST_BYTES = 60_000_000
"""Most that travels: the source tree and the packages."""

PACKAGES = ("bitsandbytes", "msgspec", "platformdirs")
"""What machines with torch and its usual companions lack."""

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_24_x86_64", "manylinux_2_17_x86_64",
             "manylinux2014_x86_64", "manylinux_2_5_x86_64", "manylinux1_x86_64")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack and print the command; return 1 if too much travels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default="3.12", help="the other machine's Python")
    parser.add_argument("--cuda", default="130", help="CUDA of its torch: 130 for 13.0")
    parser.add_argument("--wheels", type=Path, help="folder with the wheels")
    parser.add_argument("--to", type=Path, default=TARGET)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        wheels = options.wheels or download(Path(place), options.python)
        shutil.rmtree(options.to, ignore_errors=True)
        for wheel in sorted(wheels.glob("*.whl")):
            unpack(wheel, options.to, cuda=options.cuda)
    missing = [name for name in PACKAGES if not (options.to / name).is_dir()]
    if missing:
        print(f"No wheel of {', '.join(missing)} in {wheels}.", file=sys.stderr)
        return 1
    tree, packages = sum(tree_sizes().values()), folder_bytes(options.to)
    print(f"source tree {tree / 1e6:6.1f} MB")
    print(f"packages    {packages / 1e6:6.1f} MB   {options.to}")
    print(f"together    {(tree + packages) / 1e6:6.1f} MB of at most {MOST_BYTES / 1e6:.0f} MB")
    place = options.to.resolve()
    shown = place.relative_to(ROOT) if place.is_relative_to(ROOT) else place
    print("\nCopy the source tree and the packages (git ignores them). On the other machine run\n")
    print(f"    sh benchmarks/gpu.sh --packages {shown}")
    return 0 if tree + packages < MOST_BYTES else 1


def download(folder: Path, python: str) -> Path:
    """Download the wheels with pip, in the versions of constraints.txt; return their folder."""
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line and not line.startswith("#")
    )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    command += [str(folder), "--only-binary=:all:", "--python-version", python]
    command += ["--implementation", "cp"]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    command += [f"{name}=={pins[name].split()[0]}" for name in PACKAGES]
    subprocess.run(command, check=True)
    return folder


def unpack(wheel: Path, target: Path, *, cuda: str) -> None:
    """Unpack a wheel without what the GPU run does not need.

    Raises ValueError if bitsandbytes has no library for this version of CUDA.
    """
    with zipfile.ZipFile(wheel) as archive:
        kept = [name for name in archive.namelist() if is_needed(name, cuda=cuda)]
        libraries = [name for name in kept if f"_cuda{cuda}." in name]
        if wheel.name.startswith("bitsandbytes") and not libraries:
            raise ValueError(f"{wheel.name} has no library for CUDA {cuda}.")
        archive.extractall(target, kept)


def is_needed(name: str, *, cuda: str) -> bool:
    """Return whether a file of a wheel is packed: Python, metadata, and the libraries in use."""
    path = PurePosixPath(name)
    if path.suffix in (".so", ".dll", ".dylib") and path.name.startswith("libbitsandbytes"):
        return path.name in (f"libbitsandbytes_cuda{cuda}.so", "libbitsandbytes_cpu.so")
    return not name.endswith(("/", ".pyi", ".c", ".h", ".lib"))


def tree_sizes() -> dict[str, int]:
    """Return the bytes of every file of the source tree: in git, or new and not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    files = {name for name in listed.decode().split("\0") if name}
    return {name: (ROOT / name).stat().st_size for name in files if (ROOT / name).is_file()}


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files of a folder."""
    return sum(size for _, size in _sizes(folder))


def _sizes(folder: Path) -> Iterator[tuple[Path, int]]:
    for file in folder.rglob("*"):
        if file.is_file():
            yield file, file.stat().st_size


if __name__ == "__main__":
    sys.exit(main())
