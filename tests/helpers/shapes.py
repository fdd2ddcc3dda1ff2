"""Model shapes that tests use."""

from __future__ import annotations

from typing import Any

from cogvlm2_lite.architectures.cogvlm2 import COGVLM2
from cogvlm2_lite.config import parse_config

REAL_JSON: dict[str, Any] = dict(COGVLM2.released.raw)
"""config.json of the released 19B model."""

REAL = parse_config(REAL_JSON)
