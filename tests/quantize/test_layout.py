"""What a conversion writes is what transformers with bitsandbytes would have written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import bitsandbytes.functional as bnb
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import cogvlm2_lite
from cogvlm2_lite.architectures.architecture import Role
from cogvlm2_lite.weights.catalog import INT8_GROUP
from quantize.recipe import Keep, QuantizeOptions
from tests.helpers.conversion import (
    CHECKPOINT,
    GOLDEN,
    SMALL_SHARDS,
    load_all,
    open_catalog,
    quantize,
    write_source,
)


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16, torch.float16], ids=str)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "checkpoint"
    return write_source(folder, dtype=request.param)


@pytest.mark.parametrize("double_quant", [True, False])
def test_every_piece_is_the_one_bitsandbytes_packs(
    source: Path, tmp_path: Path, double_quant: bool
) -> None:
    quantize(
        source, tmp_path / "q", QuantizeOptions(double_quant=double_quant, shard_bytes=200_000)
    )
    plain, ours = load_all(source), load_all(tmp_path / "q")
    for name, tensor in open_catalog(source).tensors.items():
        if tensor.spec.role is not Role.LINEAR or name == "lm_head.weight":
            assert torch.equal(_bits(ours.pop(name)), _bits(plain[name])), name
            continue
        for piece, theirs in _pack(name, plain[name], double_quant):
            mine = ours.pop(piece)
            if "quant_state" in piece:
                packed, spaces = mine[: theirs.numel()], mine[theirs.numel() :]
                assert bytes(packed.tolist()) == bytes(theirs.tolist())
                assert set(spaces.tolist()) <= {ord(" ")}
            else:
                assert mine.dtype == theirs.dtype, piece
                assert torch.equal(mine, theirs), piece
    assert not ours


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)


def _pack(name: str, weight: Tensor, double_quant: bool) -> Iterator[tuple[str, Tensor]]:
    codes, state = bnb.quantize_4bit(weight, quant_type="nf4", compress_statistics=double_quant)
    yield name, codes
    for suffix, tensor in state.as_dict(packed=True).items():
        yield f"{name}.{suffix}", tensor


def test_bitsandbytes_reads_the_padded_quant_state(tmp_path: Path) -> None:
    quantize(CHECKPOINT, tmp_path / "q")
    ours, plain = load_all(tmp_path / "q"), load_all(CHECKPOINT)
    name = "model.layers.1.mlp.vision_mlp.up_proj.weight"
    parts = {k.removeprefix(name + "."): v for k, v in ours.items() if k.startswith(name + ".")}
    state = bnb.QuantState.from_dict(parts, device=torch.device("cpu"))
    ours_back = bnb.dequantize_4bit(ours[name], state)
    codes, theirs = bnb.quantize_4bit(plain[name], quant_type="nf4", compress_statistics=True)
    assert torch.equal(ours_back, bnb.dequantize_4bit(codes, theirs))


def test_int8_is_within_half_a_step_of_the_source(tmp_path: Path) -> None:
    keep = (Keep(pattern="vision-expert", kind="int8"),)
    quantize(CHECKPOINT, tmp_path / "q", QuantizeOptions(keep=keep))
    ours, plain = load_all(tmp_path / "q"), load_all(CHECKPOINT)
    count = 0
    for name, tensor in open_catalog(tmp_path / "q").tensors.items():
        if tensor.kind != "int8":
            continue
        count += 1
        scale = ours[f"{name}.scale"].repeat_interleave(INT8_GROUP, dim=1)
        back = ours[name] * scale
        assert (back - plain[name]).abs().max() <= scale.max() * 0.5001
        # The largest weight of each group is exact up to rounding, so the range is used.
        assert ours[name].abs().amax() == 127
    assert count == 10


def test_groups_of_zeros_stay_zero(tmp_path: Path) -> None:
    names = [f"model.layers.{i}.mlp.language_mlp.up_proj.weight" for i in (0, 1)]
    some = torch.zeros(192, 128, dtype=torch.bfloat16)
    some[::8, 0] = 1.0  # without them this would be an empty matrix, which is rejected
    zeros = {name: some.clone() for name in names}
    source = write_source(tmp_path / "s", replace=zeros)
    keep = (Keep(pattern="model.layers.1.*", kind="int8"),)
    quantize(source, tmp_path / "q", QuantizeOptions(keep=keep))
    model = cogvlm2_lite.load(tmp_path / "q", device="cpu", dtype="float32")
    model.forward(torch.tensor([[1, 2, 3]]))
    for block in model.runtime.parts.decoder.blocks:
        stored = block.language.up.stored
        assert stored is not None
        assert torch.equal(stored.dequantize(torch.float32), some.float())


def test_index_and_config_tell_the_truth(tmp_path: Path) -> None:
    quantize(CHECKPOINT, tmp_path / "q", SMALL_SHARDS)
    tensors = load_all(tmp_path / "q")
    index = json.loads((tmp_path / "q/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
    assert set(index["weight_map"]) == set(tensors)
    assert len(set(index["weight_map"].values())) > 2
    config = json.loads((tmp_path / "q/config.json").read_text())
    before = json.loads((CHECKPOINT / "config.json").read_text())
    assert config["torch_dtype"] == "float32"
    assert "auto_map" not in config
    assert {k: config[k] for k in before if k != "auto_map"} == {
        k: v for k, v in before.items() if k != "auto_map"
    }
    assert config["quantization_config"]["llm_int8_skip_modules"] == ["lm_head"]


def test_skipped_modules_are_exactly_those_that_are_not_4_bit(tmp_path: Path) -> None:
    keep = (Keep(pattern="projector", kind="bf16"), Keep(pattern="*layers.0.*dense", kind="int8"))
    quantize(CHECKPOINT, tmp_path / "q", QuantizeOptions(keep=keep, lm_head="nf4"))
    config = json.loads((tmp_path / "q/config.json").read_text())
    catalog = open_catalog(tmp_path / "q")
    wide = [
        name.removesuffix(".weight")
        for name, t in catalog.tensors.items()
        if t.spec.role is Role.LINEAR and t.kind != "nf4"
    ]
    assert config["quantization_config"]["llm_int8_skip_modules"] == wide
    assert len(wide) == 4 + 3
    assert "lm_head" not in wide


def test_tokenizer_and_licence_travel_and_code_does_not(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s")
    for name in ("tokenizer.json", "generation_config.json", "LICENSE", "modeling_cogvlm.py"):
        (source / name).write_text(json.dumps({"file": name}))
    quantize(source, tmp_path / "q")
    assert json.loads((tmp_path / "q/tokenizer.json").read_text()) == {"file": "tokenizer.json"}
    assert (tmp_path / "q/LICENSE").exists()
    assert not (tmp_path / "q/modeling_cogvlm.py").exists()


@pytest.mark.parametrize("case", ["text_only", "one_image"])
def test_our_own_loader_answers_as_with_dequantized_weights(tmp_path: Path, case: str) -> None:
    keep = (Keep(pattern="model.layers.0.*", kind="int8"),)
    quantize(CHECKPOINT, tmp_path / "q", QuantizeOptions(lm_head="nf4", keep=keep))
    _write_dequantized(tmp_path / "q", tmp_path / "plain")
    golden = load_file(GOLDEN / "golden_fp32.safetensors")
    logits = []
    for folder in (tmp_path / "q", tmp_path / "plain"):
        model = cogvlm2_lite.load(folder, device="cpu", dtype="float32")
        features = model.encode_image(golden["in.image"]) if case == "one_image" else None
        ids, types = golden[f"{case}.input_ids"], golden[f"{case}.token_type_ids"]
        logits.append(model.forward(ids, types, image_features=features))
    assert (logits[0] - logits[1]).abs().max() < 2e-4
    # And it is near the source, which a mixed-up tensor would not be.
    near = torch.nn.functional.cosine_similarity(logits[0], golden[f"{case}.logits"], dim=-1)
    assert near.mean() > 0.8


def _write_dequantized(folder: Path, target: Path) -> None:
    """Expand a folder with bitsandbytes' own functions into a plain one."""
    ours, catalog = load_all(folder), open_catalog(folder)
    plain: dict[str, Tensor] = {}
    for name, tensor in catalog.tensors.items():
        parts = {k.removeprefix(name + "."): v for k, v in ours.items() if k.startswith(name + ".")}
        if tensor.kind == "nf4":
            state = bnb.QuantState.from_dict(parts, device=torch.device("cpu"))
            plain[name] = bnb.dequantize_4bit(ours[name], state)
        elif tensor.kind == "int8":
            plain[name] = ours[name] * parts["scale"].repeat_interleave(INT8_GROUP, dim=1)
        else:
            plain[name] = ours[name]
    write_source(target, replace=plain)
