"""Names in the folder of an adapter. No torch here."""

from __future__ import annotations

WEIGHTS_NAME = "adapter_model.safetensors"
CONFIG_NAME = "adapter_config.json"
OWN_NAME = "cogvlm2_lite_adapter.json"
ADAPTER_FILES = (WEIGHTS_NAME, CONFIG_NAME, OWN_NAME)

ALL_ROWS, BEHIND_PICTURE = "all", "behind the picture"
ACTS_ON = (ALL_ROWS, BEHIND_PICTURE)
"""Rows on which an adapter acts; peft knows only the first."""
