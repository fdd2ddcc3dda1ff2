"""The options of a model folder as one value, for the command line, the window and the worker.

No torch here: the programs that start a worker import this module.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from cogvlm2_lite.inputs.limits import DEFAULT_LIMITS
from cogvlm2_lite.weights.adapter_choice import AdapterChoice

ACTIVATIONS = ("auto", "int8")
"""The values of LoadOptions.activations."""


class LoadOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model folder and how to run it. The fields are explained at `cogvlm2_lite.load`.

    adapters            those of one name are added up; the first name acts if nobody chooses
    max_picture_pixels  a worker rejects larger pictures before it decodes them
    """

    folder: Path
    device: str = "auto"
    dtype: str = "auto"
    rope: str = "reference"
    vram: int | str | None = None
    ram: int | str | None = None
    offload: str = "auto"
    context: int | None = None
    kv: str = "full"
    activations: str = "auto"
    parallel: int = 1
    pictures: tuple[Path, int] | None = None
    adapters: tuple[AdapterChoice, ...] = ()
    any_base: bool = False
    speculation: bool = True
    max_picture_pixels: int = DEFAULT_LIMITS.max_pixels
