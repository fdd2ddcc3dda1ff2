"""Files that are written whole, and files whose author can be recognised later."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

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
