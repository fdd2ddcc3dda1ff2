"""Registers the classes of this package with the Auto classes of transformers."""

from __future__ import annotations

from typing import Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    PreTrainedConfig,
)

from cogvlm2_lite.hf.config import CogVLM2Config, is_cogvlm2
from cogvlm2_lite.hf.model import CogVLM2ForConditionalGeneration
from cogvlm2_lite.hf.processor import CogVLM2ImageProcessor, CogVLM2Processor


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
    _name_the_model_type()


def _name_the_model_type() -> None:
    """Add `model_type` to the content of CogVLM2's config.json when an Auto class reads it.

    The released config.json has none, but names remote code. AutoConfig chooses the class by
    `model_type` and has no other way to register one, so its reader is wrapped here. auto_map is
    left out, so that nothing asks for, or runs, remote code.
    """
    read: Any = PreTrainedConfig.__dict__["get_config_dict"].__func__
    if read.__module__ == __name__:  # wrapped by an earlier call
        return

    def get_config_dict(cls: Any, /, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        content, others = read(cls, pretrained_model_name_or_path, **kwargs)
        if kwargs.get("_from_auto") and is_cogvlm2(content):
            content = {key: value for key, value in content.items() if key != "auto_map"}
            content["model_type"] = CogVLM2Config.model_type
        return content, others

    get_config_dict.__doc__ = read.__doc__
    setattr(PreTrainedConfig, "get_config_dict", classmethod(get_config_dict))  # noqa: B010
