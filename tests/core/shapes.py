"""Model shapes that tests use."""

from __future__ import annotations

from typing import Any

from cogvlm2_lite.config import parse_config

REAL_JSON: dict[str, Any] = {
    "architectures": ["CogVLMForCausalLM"],
    "vision_config": {
        "dropout_prob": 0.0, "hidden_act": "gelu", "in_channels": 3, "num_hidden_layers": 63,
        "hidden_size": 1792, "patch_size": 14, "num_heads": 16, "intermediate_size": 15360,
        "layer_norm_eps": 1e-6, "num_positions": 9217, "image_size": 1344,
    },
    "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_hidden_layers": 32, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
    "hidden_act": "silu", "vocab_size": 128256, "template_version": "chat",
    "initializer_range": 0.02, "use_cache": True, "bos_token_id": 128000,
    "eos_token_id": [128001, 128009], "pad_token_id": 128002,
}  # fmt: skip
"""config.json of the released 19B model, with the two defaults that it leaves out."""

REAL = parse_config(REAL_JSON)
