"""Collects the report of `cogvlm2-lite doctor`: facts first, then problems.

Nothing here raises an error: a fact that can't be determined is reported as such. Paths in the home
folder are written with ~, so that the report does not contain the user's name.
"""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType

import psutil

from cogvlm2_lite import __version__
from cogvlm2_lite.architectures.cogvlm2 import COGVLM2
from cogvlm2_lite.backends.base import Backend
from cogvlm2_lite.backends.cpu import cpu_flags, cpu_info
from cogvlm2_lite.backends.device import Gpu
from cogvlm2_lite.backends.measured import evidence
from cogvlm2_lite.backends.registry import accelerators, backends
from cogvlm2_lite.config import read_config
from cogvlm2_lite.demo.shipped import checkpoint_folder, fingerprint
from cogvlm2_lite.devices import choose_compute, prepare_threads
from cogvlm2_lite.errors import CogVLM2LiteError
from cogvlm2_lite.folders.explain import CONFIG_NAME
from cogvlm2_lite.forecast.machine import find_machine
from cogvlm2_lite.forecast.preview import PlannedModel, folder_subject, preview, released_subject
from cogvlm2_lite.memory.budget import Allowance, free_disk_bytes, free_ram_bytes
from cogvlm2_lite.places import cache_folder, check_cache
from cogvlm2_lite.units import GIB, MIB, format_bytes
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.zeros import look_for_zeros

_REQUIRED = (
    "torch", "bitsandbytes", "tokenizers", "safetensors", "numpy", "pillow", "psutil", "msgspec",
    "platformdirs", "filelock",
)  # fmt: skip
_OPTIONAL = (
    # The first two are used in tests only; the application folder does not contain them.
    "transformers", "accelerate", "xformers", "PySide6-Essentials", "starlette", "uvicorn",
    "llguidance",
)  # fmt: skip
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")
_REAL_NF4_BYTES = int(11.7e9)
"""The 19B model in NF4 with double quantization."""
_REAL_HEAD_DIM = 128
_ZERO_SAMPLE_BYTES = 8 * MIB

Rows = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class DoctorReport:
    """Sections of named facts, and sentences about problems."""

    sections: Mapping[str, Rows]
    problems: tuple[str, ...]

    def text(self) -> str:
        """Return the report as text."""
        width = max(len(name) for rows in self.sections.values() for name in rows)
        lines = []
        for title, rows in self.sections.items():
            lines.append(title)
            lines += [f"  {name:{width}}  {value}" for name, value in rows.items()]
            lines.append("")
        lines.append("Problems" if self.problems else "No problems found.")
        lines += [f"  - {problem}" for problem in self.problems]
        return "\n".join(lines) + "\n"

    def as_dict(self) -> dict[str, object]:
        """Return the report as JSON-ready values."""
        sections = {title: dict(rows) for title, rows in self.sections.items()}
        return {"sections": sections, "problems": list(self.problems)}


def gather() -> DoctorReport:
    """Return the report. Importing torch takes a few seconds."""
    prepare_threads()
    torch = _import_torch()
    cards = accelerators() if torch is not None else ()
    sections: dict[str, Rows] = {"Program": _program(), "Packages": _packages()}
    sections["Processor"] = _processor(torch)
    sections["Memory"] = _memory()
    sections["GPUs"] = gpus(cards)
    sections["Disk"] = _disk()
    sections["Kernels"] = _kernels(torch)
    sections["Demo model"] = _demo()
    sections["Plan now"] = _plans(torch)
    return DoctorReport(sections=sections, problems=tuple(problems(cards)))


def _import_torch() -> ModuleType | None:
    # OSError: a library that torch's own libraries need is missing.
    try:
        return importlib.import_module("torch")
    except (ImportError, OSError):
        return None


def _program() -> Rows:
    return {
        "CogVLM2 Lite": __version__,
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": f"{platform.platform()} {_distribution()}".strip(),
        "installed in": short_path(Path(__file__).parents[2]),
    }


def _distribution() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""
    return f"({name})" if name else ""


def _packages() -> Rows:
    return {name: _version(name) for name in (*_REQUIRED, *_OPTIONAL)}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed" + (" (optional)" if package in _OPTIONAL else "")


def _processor(torch: ModuleType | None) -> Rows:
    features = [name for name in _FEATURES if name in cpu_flags()]
    rows = {
        "name": _cpu_name(),
        "cores": f"{psutil.cpu_count(logical=False)} ({psutil.cpu_count()} threads)",
        "features": ", ".join(features) or "unknown",
    }
    if torch is not None:
        rows["torch uses"] = str(torch.backends.cpu.get_cpu_capability())
        rows["torch threads"] = str(torch.get_num_threads())
    rows["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "not set")
    return rows


def _cpu_name() -> str:
    return cpu_info().get("model name") or platform.processor() or platform.machine()


def _memory() -> Rows:
    ram, swap = psutil.virtual_memory(), psutil.swap_memory()
    return {
        "RAM": f"{format_bytes(free_ram_bytes())} available of {format_bytes(ram.total)}",
        "swap": f"{format_bytes(swap.free)} free of {format_bytes(swap.total)}",
    }


def gpus(cards: Sequence[Backend]) -> Rows:
    """Return every GPU that torch can use, or why there is none.

    cards  the GPU back ends; none if torch can't be imported
    """
    rows: dict[str, str] = {}
    troubles = [] if cards else ["torch can't be imported"]
    for backend in cards:
        found, trouble = backend.find()
        for gpu in sorted(found, key=lambda gpu: gpu.index):
            rows[gpu.device] = _gpu(backend, gpu)
            rows[f"{gpu.device}: evidence"] = evidence(gpu)
        # Without a driver no GPU is expected. If no GPU can be used, one reason is shown.
        expected = backend.has_driver() or not (rows or troubles)
        troubles += [trouble] if trouble and expected else []
    return rows | ({"not used" if rows else "none": "; ".join(troubles)} if troubles else {})


def _gpu(backend: Backend, gpu: Gpu) -> str:
    sizes = f"{format_bytes(gpu.free_bytes)} free of {format_bytes(gpu.total_bytes)}"
    return ", ".join(filter(None, (gpu.name, sizes, backend.describe(gpu))))


def _disk() -> Rows:
    return {
        name: _place(find)
        for name, find in (("cache folder", cache_folder), ("working folder", Path.cwd))
    }


def _place(find: Callable[[], Path]) -> str:
    try:
        path = find()
    except CogVLM2LiteError as error:
        return f"{error.message} {error.hint}"
    except OSError as error:  # the working folder was deleted
        return f"unknown: {error.strerror}"
    return f"{short_path(path)}, {_free_disk(path)}"


def _free_disk(path: Path) -> str:
    free = free_disk_bytes(path)
    return "free space unknown" if free is None else f"{format_bytes(free)} free"


def _kernels(torch: ModuleType | None) -> Rows:
    if torch is None:
        return {"none": "torch can't be imported"}
    from cogvlm2_lite.model.token_attention import choose_token_attention
    from cogvlm2_lite.weights.kernels.choice import choose_kernels

    rows = {}
    for device in [b.kind for b in backends() if b not in accelerators() or b.find()[0]]:
        compute = choose_compute(device, "auto")
        kernels = choose_kernels(compute.device, compute.dtype)
        dtype = str(compute.dtype).removeprefix("torch.")
        rows[f"{device}: numbers"] = f"{dtype}: {compute.reason}"
        rows[f"{device}: 4-bit"] = f"{kernels.name}: {kernels.reason}"
        decoding = choose_token_attention(compute.device, compute.dtype, _REAL_HEAD_DIM)
        rows[f"{device}: decoding attention"] = f"{decoding.name}: {decoding.reason}"
    return rows


def _demo() -> Rows:
    try:
        source = checkpoint_folder()
    except CogVLM2LiteError as error:
        return {"shipped": error.message}
    size = sum(path.stat().st_size for path in source.iterdir())
    rows = {"shipped": f"{format_bytes(size)}"}
    try:
        made = cache_folder() / f"demo-nf4-{fingerprint(source)}"
        there = made.is_dir()
    except (CogVLM2LiteError, OSError):
        return rows | {"4-bit copy": "none: there is no cache folder that can be used"}
    return rows | {
        "4-bit copy": short_path(made) if there else "none yet; cogvlm2-lite demo makes it"
    }


def _plans(torch: ModuleType | None) -> Rows:
    """Return a line each about how the demo model and the 19B model would run now."""
    if torch is None:
        return {"none": "torch can't be imported"}
    try:
        machine = find_machine("auto", Allowance())
    except CogVLM2LiteError as error:
        return {"none": error.message}
    rows = {"planned for": "; ".join((machine.label, *(b.origin for b in machine.budgets)))}
    subjects: Mapping[str, Callable[[], PlannedModel]] = {
        "demo": lambda: folder_subject(checkpoint_folder(), "demo"),
        "19b, 4 bits": lambda: released_subject(COGVLM2.released),
    }
    for name, find in subjects.items():
        try:
            rows[name] = preview(find(), machine).sentence
        except CogVLM2LiteError as error:
            rows[name] = error.message
    return rows


def problems(cards: Sequence[Backend]) -> Iterator[str]:
    """Yield the problems, with what to do about them.

    cards  as for `gpus`
    """
    for package in _REQUIRED:
        if _version(package).startswith("not installed"):
            yield f"{package} is not installed. Install CogVLM2 Lite again with pip."
    if not cards and not _version("torch").startswith("not installed"):
        yield "torch is installed but can't be imported. Try: python -c 'import torch'"
    yield from _cache_problem()
    available = free_ram_bytes()
    checked = [(backend, *backend.find()) for backend in cards]
    if not any(found for _, found, _ in checked) and available < _REAL_NF4_BYTES + GIB:
        yield (
            f"{format_bytes(available)} of RAM are available, but the 19B model in 4 bits needs "
            f"about {format_bytes(_REAL_NF4_BYTES + GIB)} without a GPU."
        )
    for backend, found, trouble in checked:
        if trouble and backend.has_driver():
            does = "Not every GPU is" if found else "A GPU driver is installed, but no GPU is"
            yield f"{does} used: {trouble}. {backend.remedy(trouble)}".rstrip()


def check_weights(folder: Path) -> None:
    """Raise CheckpointError if weights of a model folder are empty, as far as some pages show.

    `verify` reads all of them.
    """
    if not (folder / CONFIG_NAME).exists():
        return
    catalog = Catalog.open(folder, read_config(folder))
    for found in look_for_zeros(catalog, most_bytes=_ZERO_SAMPLE_BYTES):
        raise found.error


def _cache_problem() -> Iterator[str]:
    try:
        check_cache()
    except CogVLM2LiteError as error:
        yield f"{error.message} {error.hint}"


def short_path(path: Path, home: Callable[[], Path] = Path.home) -> str:
    """Return a path with ~ for the home folder."""
    try:
        return str(Path("~") / path.relative_to(home()))
    except (ValueError, RuntimeError):  # not in the home folder; there is no home folder
        return str(path)
