"""Registers the classes of this package with the Auto classes of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    AutoTokenizer,
    ImageProcessingMixin,
    PreTrainedConfig,
)

from cogvlm2_lite.hf.config import HUB_KEYS, CogVLM2Config, cached_numbers, is_cogvlm2
from cogvlm2_lite.hf.model import CogVLM2ForConditionalGeneration
from cogvlm2_lite.hf.processor import CogVLM2ImageProcessor, CogVLM2Processor
from cogvlm2_lite.hf.tokenizer import complete_tokenizer


def register() -> None:
    """Make the Auto classes return our classes for folders of CogVLM2; a second call is harmless.

    A folder of another model is loaded as before.
    """
    AutoConfig.register(CogVLM2Config.model_type, CogVLM2Config, exist_ok=True)
    AutoProcessor.register(CogVLM2Config, CogVLM2Processor, exist_ok=True)
    AutoImageProcessor.register(
        CogVLM2Config, image_processor_classes={"pil": CogVLM2ImageProcessor}, exist_ok=True
    )
    for auto in (AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoModelForCausalLM):
        auto.register(CogVLM2Config, CogVLM2ForConditionalGeneration, exist_ok=True)
    # The released folder leaves out what the Auto classes look for, and they have no other way to
    # add it, so three of their methods are wrapped.
    _wrap(PreTrainedConfig, "get_config_dict", _config_dict)
    _wrap(ImageProcessingMixin, "get_image_processor_dict", _picture_dict)
    _wrap(AutoTokenizer, "from_pretrained", _tokenizer)


def _wrap(owner: type, name: str, wrapper: Callable[..., Any]) -> None:
    """Replace a class method by `wrapper`, which gets the method and the class first."""
    method: Any = owner.__dict__[name].__func__
    if method.__module__ == __name__:  # wrapped by an earlier call
        return

    def wrapped(cls: Any, /, *args: Any, **kwargs: Any) -> Any:
        return wrapper(method, cls, *args, **kwargs)

    wrapped.__doc__ = method.__doc__
    setattr(owner, name, classmethod(wrapped))


# The names of the arguments are those of transformers: programs may pass them by name.


def _config_dict(read: Any, cls: Any, /, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
    """Add `model_type` to the content of CogVLM2's config.json when an Auto class reads it.

    The released config.json has none, but names remote code. auto_map is left out, so that nothing
    asks for, or runs, remote code.
    """
    content, others = read(cls, pretrained_model_name_or_path, **kwargs)
    if kwargs.get("_from_auto") and is_cogvlm2(content):
        content = {key: value for key, value in content.items() if key != "auto_map"}
        content["model_type"] = CogVLM2Config.model_type
    return content, others


def _picture_dict(read: Any, cls: Any, /, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
    """Return the settings of CogVLM2's image processor from config.json: they have no own file."""
    try:
        return read(cls, pretrained_model_name_or_path, **kwargs)
    except OSError:
        ours = kwargs.get("_from_auto") or issubclass(cls, CogVLM2ImageProcessor)
        numbers = cached_numbers(pretrained_model_name_or_path, kwargs) if ours else None
        if numbers is None:
            raise
    side = numbers.vision.image_size
    others = {key: value for key, value in kwargs.items() if key not in (*HUB_KEYS, "_from_auto")}
    return {"size": {"height": side, "width": side}}, others


def _tokenizer(
    load: Any, cls: Any, /, pretrained_model_name_or_path: Any, *inputs: Any, **kwargs: Any
) -> Any:
    """Return the tokenizer of a folder, that of CogVLM2 with its chat template."""
    tokenizer = load(cls, pretrained_model_name_or_path, *inputs, **kwargs)
    complete_tokenizer(tokenizer, pretrained_model_name_or_path, kwargs)
    return tokenizer
