"""A lock between processes. The system frees it when its process ends, also after a kill."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hold_lock(file: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of a file, which exists only for that time.

    Raises BlockingIOError if another process still holds it after wait_s seconds, an OSError with
    the number ENOLCK on a file system that has no locks, and other OSErrors.
    """
    from filelock import FileLock, Timeout  # takes 0.2 s, and --help needs no lock

    # Without the fallback: a soft lock would outlive a process that was killed.
    lock = FileLock(file, timeout=wait_s, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(file)) from error
    except NotImplementedError as error:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(file)) from error
    try:
        yield
    finally:
        # The file is deleted before the lock is released: a process that waits makes a new one.
        if sys.platform != "win32":
            file.unlink(missing_ok=True)
        lock.release()
