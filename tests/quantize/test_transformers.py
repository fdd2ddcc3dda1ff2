"""A quantized folder loads in transformers with bitsandbytes and gives the same answers there.

transformers knows no CogVLM2, so the test has a class with modules of the right names. They are
loaded by transformers and multiplied by bitsandbytes, inside of our model's slots.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from quantize.recipe import Keep, QuantizeOptions
from tests.helpers.conversion import CHECKPOINT, SMALL_SHARDS, quantize, write_source
from tests.helpers.transformers_tree import both_logits, load_tree


@pytest.mark.parametrize(
    "settings",
    [
        SMALL_SHARDS,
        QuantizeOptions(double_quant=False),
        QuantizeOptions(lm_head="nf4", keep=(Keep(pattern="model.layers.0.*", kind="bf16"),)),
    ],
    ids=["default", "plain scales", "mixed, nf4 head"],
)
def test_transformers_gives_the_same_logits_in_float32(
    tmp_path: Path, settings: QuantizeOptions
) -> None:
    folder = tmp_path / "q"
    quantize(CHECKPOINT, folder, settings)
    for ours, theirs in both_logits(folder, load_tree(folder), "float32"):
        assert (ours - theirs).abs().max() < 2e-4


def test_transformers_gives_the_same_logits_in_bfloat16(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s")
    quantize(source, tmp_path / "q")
    for ours, theirs in both_logits(tmp_path / "q", load_tree(tmp_path / "q"), "bfloat16"):
        assert (ours - theirs).abs().max() < 0.05 * theirs.std()


def test_transformers_uses_4_bit_modules_for_what_we_call_nf4(tmp_path: Path) -> None:
    quantize(CHECKPOINT, tmp_path / "q")
    kinds = {type(m).__name__ for n, m in load_tree(tmp_path / "q").named_modules() if "mlp." in n}
    assert "Linear4bit" in kinds
