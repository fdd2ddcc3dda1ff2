"""Small model folders that tests make for themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.core.goldens import CHECKPOINT

BOS, EOS, PAD = 500, 501, 502


def talking_folder(folder: Path) -> Path:
    """Make the golden checkpoint able to talk: the same weights with a byte-level tokenizer.

    Its answers are nonsense, always the same, and change with every bit of the prompt.
    """
    shutil.copytree(CHECKPOINT, folder)
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
