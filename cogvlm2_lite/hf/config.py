"""The configuration that transformers sees, from a folder's config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from cogvlm2_lite.architectures import ARCHITECTURES
from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.architectures.others import other_model
from cogvlm2_lite.config import parse_config

HUB_KEYS = ("cache_dir", "revision", "token", "local_files_only", "subfolder")
"""Arguments of `from_pretrained` that say where the files of a model are."""


class CogVLM2VisionConfig(PreTrainedConfig):
    """The numbers of the vision tower, under the names of config.json."""

    model_type = "cogvlm2_vision"


class CogVLM2Config(PreTrainedConfig):
    """A CogVLM2 configuration, under the names of config.json.

    The released model marks the places of a picture with its padding token, so `image_token_id` is
    another name of `pad_token_id`.
    """

    model_type = "cogvlm2"
    attribute_map: ClassVar[dict[str, str]] = {
        "num_key_value_heads": "num_multi_query_heads",
        "image_token_id": "pad_token_id",
    }
    sub_configs: ClassVar[dict[str, type[PreTrainedConfig]]] = {
        "vision_config": CogVLM2VisionConfig
    }

    def __init__(self, vision_config: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(vision_config, Mapping):
            vision_config = CogVLM2VisionConfig(**vision_config)
        self.vision_config = vision_config or CogVLM2VisionConfig()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Return the configuration of a config.json.

        Numbers that the released file leaves out are added. Raises CheckpointError if it is not
        CogVLM2's, with the same rules as every command.
        """
        numbers = parse_config(config_dict, where=str(kwargs.get("name_or_path", "config.json")))
        content = {key: value for key, value in config_dict.items() if key != "auto_map"}
        content["num_multi_query_heads"] = numbers.num_multi_query_heads
        content["template_version"] = numbers.template_version
        content["tie_word_embeddings"] = False
        return super().from_dict(content, **kwargs)


def numbers_of(config: CogVLM2Config) -> ModelConfig:
    """Return the configuration as the rest of this program uses it."""
    content = config.to_dict()
    vision: Any = config.vision_config
    content["vision_config"] = vision.to_dict()
    return parse_config(content)


def cached_numbers(folder: Any, kwargs: Mapping[str, Any]) -> ModelConfig | None:
    """Return the configuration of a folder or of a name in the Hugging Face cache.

    None if it has no config.json, or that of another model. Nothing is downloaded.
    """
    hub = {key: kwargs[key] for key in HUB_KEYS if key in kwargs} | {"local_files_only": True}
    try:
        content, _ = PreTrainedConfig.get_config_dict(folder, **hub)
    except OSError:
        return None
    return parse_config(content) if is_cogvlm2(content) else None


def is_cogvlm2(raw: Mapping[str, Any]) -> bool:
    """Return whether the content of a config.json is CogVLM2's: by class name or `model_type`."""
    names = raw.get("architectures")
    named = isinstance(names, list) and any(str(name) in ARCHITECTURES for name in names)
    ours = named or raw.get("model_type") == CogVLM2Config.model_type
    return ours and other_model(raw) is None
