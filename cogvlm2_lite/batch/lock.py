"""Only one batch writes in a folder: two would mix their tables and count the same lines."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cogvlm2_lite.errors import DoesNotFitError, UsageError
from cogvlm2_lite.lock_file import hold_lock
from cogvlm2_lite.text import Text

LOCK = ".cogvlm2-batch.lock"


@contextmanager
def exclusive_batch(folder: Path) -> Iterator[tuple[Text, ...]]:
    """Hold the lock of a folder of answers; the system frees it when the process ends.

    Yields what the user should know: a file system without locks can't keep another batch out.
    The folder is created. Raises UsageError if another batch holds the lock, and DoesNotFitError if
    nothing can be written there.
    """
    notices: tuple[Text, ...] = ()
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(hold_lock(folder / LOCK))
        except BlockingIOError as error:
            raise UsageError(
                "Another batch is writing its answers to {folder}.",
                hint="Wait until it has ended, or choose another folder for the answers.",
                folder=folder,
            ) from error
        except OSError as error:
            if error.errno != errno.ENOLCK:
                raise DoesNotFitError(
                    "{folder} can't be written to: {why}.",
                    hint="Make it writable, or choose another folder for the answers.",
                    folder=folder,
                    why=error.strerror or error,
                ) from error
            notices = (
                Text(
                    "The file system of {folder} has no locks. Start no second batch there before "
                    "this one has ended.",
                    folder=folder,
                ),
            )
        yield notices
