"""Makes the import of large modules faster in a program that starts. No torch here."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

_TORCH_LIBRARIES = ("libtorch_global_deps.so", "libtorch_cpu.so")
"""In the order in which torch loads them. Neither of them uses Python."""


@contextmanager
def paused_collector() -> Iterator[None]:
    """Pause the garbage collector.

    Importing torch creates 180,000 objects that stay. The collector looks at them again and again
    while their number grows, which takes 0.2 s.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def load_torch_libraries() -> threading.Thread | None:
    """Load the libraries of torch in another thread, if this is Linux; `import torch` finds them.

    The system needs 0.2 s to link them, in which Python can do other work on another core. What
    goes wrong here goes wrong again in `import torch`, which reports it. Return the thread. Call
    prepare_threads first: the OpenMP library reads its variables when it is loaded.
    """
    folder = _torch_folder() if sys.platform == "linux" else None
    if folder is None or "torch" in sys.modules:
        return None
    paths = [folder / "lib" / name for name in _TORCH_LIBRARIES]
    if not all(path.is_file() for path in paths):  # a build of another kind
        return None
    thread = threading.Thread(target=_open_libraries, args=(paths,), name="load torch")
    thread.start()
    return thread


def _torch_folder() -> Path | None:
    spec = find_spec("torch")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _open_libraries(paths: list[Path]) -> None:
    # dlopen is called as a C function, because ctypes.CDLL keeps Python from running meanwhile.
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.restype, dlopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
    first, *others = paths
    if dlopen(os.fsencode(first), os.RTLD_NOW | os.RTLD_GLOBAL):  # torch makes it global, too
        for path in others:
            dlopen(os.fsencode(path), os.RTLD_NOW)
