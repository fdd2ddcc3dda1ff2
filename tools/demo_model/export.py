"""Write trained weights as a checkpoint folder in the released layout."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from tools.demo_model.batches import make_encoder
from tools.demo_model.network import Dims, Weights, inverse_frequencies
from tools.demo_model.tokenizer import TURN_END, save_tokenizer, write_json

WEIGHTS_FILE = "model.safetensors"


def export(weights: Weights, dims: Dims, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config, generation config, weights (bfloat16), index and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to(torch.bfloat16).contiguous().clone()
        for name, tensor in weights.items()
        if not name.startswith("reader.")
    }
    for layer in range(dims.layers):
        name = f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"
        tensors[name] = inverse_frequencies(dims)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / WEIGHTS_FILE).chmod(0o644)
    size = sum(2 * tensor.numel() for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict.fromkeys(sorted(tensors),
             WEIGHTS_FILE)}  # fmt: skip
    write_json(folder / f"{WEIGHTS_FILE}.index.json", index)
    encoder = make_encoder(tokenizer)
    ids = {
        "bos_token_id": encoder.bos,
        "eos_token_id": [encoder.eos, tokenizer.token_to_id(TURN_END)],
        "pad_token_id": encoder.pad,
    }
    write_json(folder / "config.json", _config(dims) | ids)
    generation = ids | {"do_sample": False, "max_length": 512, "transformers_version": "4.40.2"}
    write_json(folder / "generation_config.json", {"_from_model_config": True} | generation)
    save_tokenizer(tokenizer, folder)


def _config(dims: Dims) -> dict[str, object]:
    """The released config's keys, with this model's sizes."""
    return {
        "architectures": ["CogVLMForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_cogvlm.CogVLMConfig",
            "AutoModelForCausalLM": "modeling_cogvlm.CogVLMForCausalLM",
        },
        "hidden_act": "silu",
        "hidden_size": dims.hidden,
        "initializer_range": 0.02,
        "intermediate_size": dims.mlp,
        "max_position_embeddings": dims.max_positions,
        "num_attention_heads": dims.heads,
        "num_hidden_layers": dims.layers,
        "num_multi_query_heads": dims.kv_heads,
        "rms_norm_eps": 1e-05,
        "template_version": "chat",
        "use_cache": True,
        "vocab_size": dims.vocab,
        "vision_config": {
            "dropout_prob": 0.0,
            "hidden_act": "gelu",
            "hidden_size": dims.vision_hidden,
            "image_size": dims.image_side,
            "in_channels": 3,
            "intermediate_size": dims.vision_mlp,
            "layer_norm_eps": 1e-06,
            "num_heads": dims.vision_heads,
            "num_hidden_layers": dims.vision_layers,
            "num_positions": dims.patches + 1,
            "patch_size": dims.patch_side,
        },
    }
