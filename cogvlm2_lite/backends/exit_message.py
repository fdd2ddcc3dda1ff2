"""A message for a program that a library ends.

bitsandbytes calls C's exit() if CUDA reports an error to it. Python does not notice such an end,
but C calls what was registered with it. Windows has no such registration: no message there.
"""

from __future__ import annotations

import atexit
import ctypes
import os
from functools import cache

MESSAGE = (
    "Error: a library ended the program, most likely because the GPU reported an error.\n"
    "  Close other programs that use the GPU and try again, with a smaller --vram or with "
    "--device cpu.\n"
)
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_kept: list[object] = []
"""What C must find when the process ends."""


@cache
def explain_sudden_end() -> None:
    """Write MESSAGE to the standard error output if a library ends this process."""
    if os.name == "nt":
        return
    library = ctypes.CDLL(None)
    register = getattr(library, "__cxa_atexit", None)
    call_now = getattr(library, "__cxa_finalize", None)
    if register is None or call_now is None:
        return
    owner, ordinary_end = os.getpid(), False

    def write(_: int | None) -> None:
        if not ordinary_end and os.getpid() == owner:
            os.write(2, MESSAGE.encode())

    def remove() -> None:
        """Let C call and forget the handler now: later there is no Python that could run it."""
        nonlocal ordinary_end
        ordinary_end = True
        call_now(name)

    handler = _Handler(write)
    mark = ctypes.c_char()
    name = ctypes.c_void_p(ctypes.addressof(mark))  # handlers are removed by such a name
    _kept.extend((handler, mark))
    register(handler, None, name)
    atexit.register(remove)
