"""Files that are written whole, and files whose author can be recognised later."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from cogvlm2_lite.file_names import cut_name

_MOST_NAME_BYTES = 255
_SEAL = re.compile(rb"<!-- cogvlm2-lite ([0-9a-f]{64}) -->\n\Z")


def write_whole(target: Path, fill: Callable[[Path], object]) -> None:
    """Create a file under a short temporary name in the same folder, then rename it.

    fill  writes the content to the temporary file

    The old file stays until the new one is complete, and its permissions are kept. The name of the
    target may be as long as the file system allows. Raises OSError, and leaves nothing behind then.
    """
    temporary = target.with_name(f".cogvlm2-{os.getpid()}.tmp")
    try:
        fill(temporary)
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_new(target: Path, data: bytes) -> None:
    """Create a file with all of its content, and never replace one.

    Raises FileExistsError if the name is taken, also by a link to nothing, and other OSErrors. It
    leaves nothing behind then.
    """
    temporary = target.with_name(f".cogvlm2-{os.getpid()}-{threading.get_ident()}.new")
    try:
        temporary.write_bytes(data)
        try:
            os.link(temporary, target)  # the only step that is atomic and does not replace
        except FileExistsError:
            raise
        except OSError:  # the file system has no hard links
            _create(target, data)
    finally:
        temporary.unlink(missing_ok=True)


def _create(target: Path, data: bytes) -> None:
    with target.open("xb") as stream:
        try:
            stream.write(data)
            stream.flush()
        except OSError:
            target.unlink(missing_ok=True)
            raise


def free_name(target: Path) -> Path:
    """Return the target, or the first of name-2, name-3, ... that does not exist."""
    number, found = 1, target
    while os.path.lexists(found):
        number += 1
        end = f"-{number}{target.suffix}"
        found = target.with_name(cut_name(target.stem, _MOST_NAME_BYTES - len(end)) + end)
    return found


def sealed_page(html: str) -> bytes:
    """Return an HTML page with a comment at its end that has the hash of all before."""
    content = html.encode()
    return content + f"<!-- cogvlm2-lite {hashlib.sha256(content).hexdigest()} -->\n".encode()


def is_sealed(content: bytes) -> bool:
    """Return whether a page is as `sealed_page` made it, so that nobody edited it since."""
    seal = _SEAL.search(content)
    if seal is None:
        return False
    return hashlib.sha256(content[: seal.start()]).hexdigest().encode() == seal[1]
