"""The model architectures this program can run, one file each.

A new member of the family is a file next to `cogvlm2.py` with its `Architecture`, a line in
ARCHITECTURES, and its mathematics in `model/`.
"""

from __future__ import annotations

from cogvlm2_lite.architectures.architecture import Architecture
from cogvlm2_lite.architectures.cogvlm2 import COGVLM2

ARCHITECTURES: dict[str, Architecture] = {COGVLM2.name: COGVLM2}
"""By the name in the list `architectures` of a config.json."""


def find_released(word: str) -> Architecture | None:
    """Return the architecture whose released model has this short name, such as "19b"."""
    return next((a for a in ARCHITECTURES.values() if a.released.word == word), None)
