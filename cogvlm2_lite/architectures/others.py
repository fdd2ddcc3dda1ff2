"""Recognizes other models by their config.json, so that an error can name them.

The field values are those of the released config.json files. Names of classes come first. Some
models share a class name and differ in their sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CLASSES = {
    "CogVLMVideoForCausalLM": "CogVLM2-Video / cogvlm2-llama3-caption",
    "CogAgentForCausalLM": "CogAgent",
    "LlamaForCausalLM": "Llama (text only)",
    "MllamaForConditionalGeneration": "Llama 3.2 Vision",
    "Llama4ForConditionalGeneration": "Llama 4",
    "Glm4vForConditionalGeneration": "GLM-4.1V",
    "Glm4vMoeForConditionalGeneration": "GLM-4.5V",
    "InternVLChatModel": "InternVL",
    "InternVLForConditionalGeneration": "InternVL",
    "MiniCPMV": "MiniCPM-V",
    "MiniCPMO": "MiniCPM-o",
    "DeepseekVLV2ForCausalLM": "DeepSeek-VL2",
    "Blip2ForConditionalGeneration": "BLIP-2",
    "Florence2ForConditionalGeneration": "Florence-2",
    "PaliGemmaForConditionalGeneration": "PaliGemma",
    "Gemma3ForConditionalGeneration": "Gemma 3",
    "Mistral3ForConditionalGeneration": "Mistral 3",
    "PixtralForConditionalGeneration": "Pixtral",
    "Phi3VForCausalLM": "Phi-3 Vision",
    "MolmoForCausalLM": "Molmo",
    "MistralForCausalLM": "Mistral (text only)",
    "Qwen2ForCausalLM": "Qwen2 (text only)",
    "Qwen3ForCausalLM": "Qwen3 (text only)",
}
"""Class name in `architectures` -> name of the model."""

_PREFIXES = {
    "Llava": "LLaVA",
    "Qwen2VL": "Qwen2-VL",
    "Qwen2_5_VL": "Qwen2.5-VL",
    "Qwen3VL": "Qwen3-VL",
    "Qwen2_5Omni": "Qwen2.5-Omni",
    "Idefics": "Idefics",
    "ChatGLM": "",
    "QWenLMHead": "",
}
"""Beginnings of class names -> name of the model; "" if the name depends on more keys."""


def other_model(raw: Mapping[str, Any]) -> str | None:
    """Return the name of the model that a config.json describes, if it is a known other one.

    None for CogVLM2, and for a config.json that matches no rule.
    """
    names = raw.get("architectures")
    for name in names if isinstance(names, list) else ():
        found = _CLASSES.get(str(name)) or _by_prefix(str(name), raw)
        if found:
            return found
    return _by_sizes(raw) or (None if names else _by_type(str(raw.get("model_type")), raw))


def _by_type(model_type: str, raw: Mapping[str, Any]) -> str | None:
    """Return the name of a model from `model_type`, such as "qwen2_vl", without a class name."""
    word = model_type.replace("_", "").lower()
    for name, title in _CLASSES.items():
        if name.lower().partition("for")[0] == word:
            return title
    cases = {prefix.lower().replace("_", ""): prefix for prefix in _PREFIXES}
    return next((_by_prefix(cases[c], raw) for c in cases if word.startswith(c)), None)


def _by_prefix(name: str, raw: Mapping[str, Any]) -> str | None:
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
    if prefix == "ChatGLM":
        # GLM-4V and the CogAgent of December 2024 have one class; ChatGLM has no vision_config.
        return "GLM-4V / CogAgent-9B" if "vision_config" in raw else "ChatGLM / GLM-4 (text only)"
    if prefix == "QWenLMHead":
        return "Qwen-VL" if "visual" in raw else "Qwen (text only)"
    return None if prefix is None else _PREFIXES[prefix]


def _by_sizes(raw: Mapping[str, Any]) -> str | None:
    """Return the name of a model of the CogVLM family with CogVLM2's class name, or without one."""
    if "cross_image_size" in raw or "cross_hidden_size" in raw:
        return "CogAgent"
    vision = raw.get("vision_config")
    if not isinstance(vision, Mapping) or raw.get("hidden_size") != 4096:
        return None
    # CogVLM (2023) is built on Vicuna, CogVLM2 on Llama 3.
    if raw.get("vocab_size") == 32000 and raw.get("intermediate_size") == 11008:
        return "CogVLM1"
    if raw.get("vocab_size") == 128256 and vision.get("image_size") == 224:
        return _CLASSES["CogVLMVideoForCausalLM"]
    return None
