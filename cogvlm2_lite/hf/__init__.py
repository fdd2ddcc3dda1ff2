"""CogVLM2 in transformers, computed by this program's runtime.

    import cogvlm2_lite.hf
    model = AutoModelForImageTextToText.from_pretrained("cogvlm2-nf4", vram="8GiB")

The import registers configuration, model and processor with the Auto classes of transformers, so
that they load folders of CogVLM2 in 16 or 4 bits, without remote code and within a memory plan.
docs/transformers.md has examples.
"""

from importlib.metadata import version
from importlib.util import find_spec

if find_spec("transformers") is None:
    raise ImportError(
        "cogvlm2_lite.hf needs the package transformers, which is not installed. Install it with: "
        'pip install "cogvlm2-lite[hf]"'
    )
if tuple(int(part) for part in version("transformers").split(".")[:2]) < (5, 24):
    raise ImportError(
        f"cogvlm2_lite.hf needs transformers 5.24 or newer, and {version('transformers')} is "
        'installed. Install it with: pip install "cogvlm2-lite[hf]"'
    )

from cogvlm2_lite.hf.config import CogVLM2Config
from cogvlm2_lite.hf.model import CogVLM2ForConditionalGeneration
from cogvlm2_lite.hf.processor import CogVLM2ImageProcessor, CogVLM2Processor
from cogvlm2_lite.hf.register import register

__all__ = [
    "CogVLM2Config",
    "CogVLM2ForConditionalGeneration",
    "CogVLM2ImageProcessor",
    "CogVLM2Processor",
    "register",
]

register()
