"""CogVLM2 Lite: the image chat model CogVLM2-19B in 4 bits, offline, on one workstation.

    import cogvlm2_lite

    model = cogvlm2_lite.load("my-model-folder")
    for event in model.answer("What is written on the sign?", image="photo.jpg"):
        ...

Importing this package is fast: torch is imported when `load` is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cogvlm2_lite.engine.model import Model, load
    from cogvlm2_lite.inputs.prompt import build_prompt
    from cogvlm2_lite.sampling import Sampling

__version__ = "0.2.0"

__all__ = ["Model", "Sampling", "__version__", "build_prompt", "load"]

_MODULES = {
    "Model": "cogvlm2_lite.engine.model",
    "load": "cogvlm2_lite.engine.model",
    "Sampling": "cogvlm2_lite.sampling",
    "build_prompt": "cogvlm2_lite.inputs.prompt",
}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use, so that `import cogvlm2_lite` is fast."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    if name in ("Model", "load"):
        from cogvlm2_lite.devices import prepare_threads

        prepare_threads()
    return getattr(importlib.import_module(_MODULES[name]), name)
