"""Build the demo model's tokenizer: byte-level BPE, digits, capitals and Chinese one by one."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tools.demo_model.generator import samples
from tools.demo_model.prompt import prompt_text
from tools.demo_model.words import COLORS_ZH, PLACES_ZH, SHAPES_ZH

VOCAB_SIZE = 704
BOS, EOS, PAD, TURN_END = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|eot_id|>",
)  # fmt: skip
SPECIAL = (BOS, EOS, PAD, TURN_END)
TEXT_SEED = 7
TEXT_PICTURES = 4000
LONE_CHARACTER = r"[A-Z](?![a-z])|[0-9]|[\u3001-\u9fff]"


def build_tokenizer() -> Tokenizer:
    """Train the tokenizer on generated conversations; the special tokens get ids 0 to 3."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LONE_CHARACTER), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and the two small files that transformers reads."""
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": BOS, "eos_token": EOS}
    settings = special | {
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 1e30,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", special)


def write_json(path: Path, content: object) -> None:
    """Write readable JSON that ends in a newline."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def _texts() -> Iterator[str]:
    for sample in islice(samples("train", TEXT_SEED, 6), TEXT_PICTURES):
        for asked in sample.conversations:
            yield f"{prompt_text(asked)} {asked.answer}"
    for names in (COLORS_ZH.values(), SHAPES_ZH.values(), PLACES_ZH):
        yield from (name for name in names for _ in range(200))
