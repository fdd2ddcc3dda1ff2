"""Only one batch writes in a folder: two would mix their tables and count the same lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cogvlm2_lite.errors import DoesNotFitError, UsageError

LOCK = ".cogvlm2-batch.lock"


@contextmanager
def exclusive_batch(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of answers; the system frees it when the process ends.

    The folder is created. Raises UsageError if another batch holds the lock, and DoesNotFitError if
    nothing can be written there.
    """
    from filelock import FileLock, Timeout  # 0.2 s, and --help needs no lock

    file = folder / LOCK
    # Without the fallback: a soft lock would outlive a batch that was killed.
    lock = FileLock(file, timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise UsageError(
            "Another batch is writing its answers to {folder}.",
            hint="Wait until it has ended, or choose another folder for the answers.",
            folder=folder,
        ) from error
    except NotImplementedError:  # a file system without locks
        yield
        return
    except OSError as error:
        raise DoesNotFitError(
            "{folder} can't be written to: {why}.",
            hint="Make it writable, or choose another folder for the answers.",
            folder=folder,
            why=error.strerror or error,
        ) from error
    try:
        yield
    finally:
        # The file is deleted before the lock is released: a batch that waits then makes a new one.
        if sys.platform != "win32":
            file.unlink(missing_ok=True)
        lock.release()
