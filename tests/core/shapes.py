"""Model shapes that tests use."""

from __future__ import annotations

from typing import Any

from cogvlm2_lite.config import RELEASED_19B, parse_config

REAL_JSON: dict[str, Any] = dict(RELEASED_19B)
"""config.json of the released 19B model."""

REAL = parse_config(REAL_JSON)
