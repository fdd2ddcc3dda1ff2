"""What the tokenizer of a model folder needs for messages and batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import ProcessorMixin

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.hf.chat_template import chat_template
from cogvlm2_lite.hf.config import cached_numbers


def complete_tokenizer(tokenizer: Any, folder: Any, kwargs: Mapping[str, Any]) -> None:
    """Add the chat template and the padding to the tokenizer of a CogVLM2 folder.

    kwargs  what was passed to `from_pretrained`; what is set there stays

    A template in tokenizer_config.json is replaced: folders of Llama 3 have one there, and CogVLM2
    was trained with another. One in chat_template.jinja stays. The tokenizer of another model is
    not changed.
    """
    numbers = cached_numbers(folder, kwargs)
    if numbers is None:
        return
    add_padding(tokenizer, numbers.pad_token_id)
    if "padding_side" in kwargs:
        tokenizer.padding_side = kwargs["padding_side"]
    if "chat_template" not in kwargs:
        saved, _ = ProcessorMixin.get_processor_dict(folder, **kwargs)
        tokenizer.chat_template = saved.get("chat_template") or _template(tokenizer, numbers)


def add_padding(tokenizer: Any, token_id: int) -> None:
    """Pad on the left, where the answers of all rows begin, with a token of the model."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(token_id)
    tokenizer.padding_side = "left"


def _template(tokenizer: Any, numbers: ModelConfig) -> str:
    bos, image = tokenizer.convert_ids_to_tokens([numbers.bos_token_id, numbers.pad_token_id])
    return chat_template(numbers.architecture.templates[numbers.template_version], bos, image)
