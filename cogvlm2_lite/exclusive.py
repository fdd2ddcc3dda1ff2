"""Only one command writes its answers in a folder: two would ask and count the same twice."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cogvlm2_lite.errors import DoesNotFitError, UsageError
from cogvlm2_lite.lock_file import hold_lock
from cogvlm2_lite.text import Text


@contextmanager
def exclusive_folder(folder: Path, command: str) -> Iterator[tuple[Text, ...]]:
    """Hold the lock of a folder of answers; the system frees it when the process ends.

    command  the command that writes there; each has a lock of its own

    Yields what the user should know: a file system without locks can't keep another command out.
    The folder is created. Raises UsageError if another process holds the lock, and DoesNotFitError
    if nothing can be written there.
    """
    notices: tuple[Text, ...] = ()
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(hold_lock(folder / f".cogvlm2-{command}.lock"))
        except BlockingIOError as error:
            raise UsageError(
                "Another {command} is writing its answers to {folder}.",
                hint="Wait until it has ended, or choose another folder for the answers.",
                command=command,
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
                    "The file system of {folder} has no locks. Start no second {command} there "
                    "before this one has ended.",
                    folder=folder,
                    command=command,
                ),
            )
        yield notices
