"""Write a folder like the released int4 ones: bitsandbytes FP4, plain float32 scales.

transformers does the same with every linear layer when it saves: `quantize_4bit`, then the packed
quant_state next to the codes. Only comparisons need it; `quantize` makes NF4, which is better.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from bitsandbytes.functional import quantize_4bit
from safetensors.torch import save_file

from cogvlm2_lite.architectures.architecture import Part, Role
from cogvlm2_lite.config import read_config
from cogvlm2_lite.weights.catalog import Catalog
from cogvlm2_lite.weights.reader import Reader

QUANTIZATION = {
    "_load_in_4bit": True,
    "_load_in_8bit": False,
    "bnb_4bit_compute_dtype": "float32",
    "bnb_4bit_quant_storage": "uint8",
    "bnb_4bit_quant_type": "fp4",
    "bnb_4bit_use_double_quant": False,
    "llm_int8_enable_fp32_cpu_offload": False,
    "llm_int8_has_fp16_weight": False,
    "llm_int8_skip_modules": None,
    "llm_int8_threshold": 6.0,
    "load_in_4bit": True,
    "load_in_8bit": False,
    "quant_method": "bitsandbytes",
}
"""As in config.json of cogvlm2-llama3-chat-19B-int4."""


def write_fp4(source: Path, destination: Path) -> Path:
    """Write `source`, a small 16-bit folder, with every linear matrix in FP4; return destination.

    lm_head stays as it is, because transformers never converts the output layer.
    """
    catalog = Catalog.open(source, read_config(source))
    reader, tensors = Reader(catalog), {}
    for name, stored in catalog.tensors.items():
        weight = reader.read(stored)["weight"].contiguous().clone()
        columns = stored.spec.shape[-1]
        linear = stored.spec.role is Role.LINEAR and stored.spec.part is not Part.LM_HEAD
        if not linear or columns % 64:
            tensors[name] = weight
            continue
        codes, state = quantize_4bit(weight, blocksize=64, quant_type="fp4")
        tensors[name] = codes
        for role, piece in state.as_dict(packed=True).items():
            tensors[f"{name}.{role}"] = piece.contiguous().clone()
    destination.mkdir(parents=True)
    save_file(tensors, destination / "model.safetensors")
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = QUANTIZATION
    (destination / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    for file in source.glob("*token*.json"):
        shutil.copy(file, destination)
    return destination


def fp4_weights(weight: torch.Tensor) -> torch.Tensor:
    """Return a matrix rounded to FP4 with bitsandbytes alone, to compare ours with."""
    from bitsandbytes.functional import dequantize_4bit

    codes, state = quantize_4bit(weight, blocksize=64, quant_type="fp4")
    plain: torch.Tensor = dequantize_4bit(codes, state)
    return plain
