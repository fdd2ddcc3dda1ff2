"""Small model folders that tests make for themselves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from cogvlm2_lite.architectures.architecture import Role, expected_tensors
from cogvlm2_lite.config import parse_config
from cogvlm2_lite.model.rotary import inverse_frequencies
from tests.helpers.goldens import CHECKPOINT

BOS, EOS, PAD = 500, 501, 502


def talking_folder(folder: Path) -> Path:
    """Make the golden checkpoint able to talk: the same weights with a byte-level tokenizer.

    Its answers are nonsense, always the same, and change with every bit of the prompt.
    """
    shutil.copytree(CHECKPOINT, folder)
    write_tokenizer(folder)
    return folder


def random_folder(
    folder: Path, *, layers: int = 5, seed: int = 0, changes: Mapping[str, int] | None = None
) -> Path:
    """Make a model of random bfloat16 weights that can talk, with enough blocks to stream.

    changes  numbers of config.json other than the golden's
    """
    import torch
    from safetensors.torch import save_file

    raw = json.loads((CHECKPOINT / "config.json").read_text())
    raw |= dict(changes or {})
    raw["num_hidden_layers"] = layers
    raw["vision_config"]["num_hidden_layers"] = layers
    config = parse_config(raw)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for spec in expected_tensors(config).values():
        scale = 0.02 if spec.role is Role.TABLE else spec.shape[-1] ** -0.5
        value = torch.randn(spec.shape, generator=generator) * scale
        if spec.role is Role.NORM:
            value = 1 + 0.1 * value
        if spec.role is Role.FREQUENCIES:
            value = inverse_frequencies(config.head_dim)
        tensors[spec.name] = value.to(torch.bfloat16)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(raw))
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """Write a byte-level BPE tokenizer of 512 ids: bytes, pairs of letters, and special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [a + b for a in "etaoinshrdlu" for b in "etaoinshrdluwmfcgypb"][: BOS - len(letters)]
    vocab = {token: i for i, token in enumerate([*letters, *pairs])}
    fast = Tokenizer(models.BPE(vocab=vocab, merges=[(p[0], p[1]) for p in pairs]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    specials = [f"<|special_{i}|>" for i in range(len(vocab), 512)]
    fast.add_special_tokens([AddedToken(name, special=True) for name in specials])
    fast.save(str(folder / "tokenizer.json"))
    settings = {"clean_up_tokenization_spaces": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
