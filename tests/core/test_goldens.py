"""Our numbers against the released model's, key by key."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from cogvlm2_lite.engine import model as model_module
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.model import decoder as decoder_module
from cogvlm2_lite.model import projector as projector_module
from cogvlm2_lite.model import vision as vision_module
from cogvlm2_lite.model.attention import grouped_attention
from cogvlm2_lite.model.rotary import RopeMode, Rotary, inverse_frequencies, rotary_table
from tests.helpers.goldens import (
    GOLDEN,
    Golden,
    compare,
    load_golden,
    make_chunk,
    open_golden_model,
)
from tests.helpers.packed import load_packed

FLOAT32_TOLERANCE = 2e-4
"""A float64 re-implementation stays within 4e-5; the smallest structural bug makes 3e-3."""


@pytest.fixture(scope="module")
def golden() -> Golden:
    return load_golden()


@pytest.fixture
def model() -> Model:
    return open_golden_model()


def worst(model: Model, golden: Golden) -> tuple[str, float]:
    """The key that differs most, relative to what it may."""
    differences = compare(model, golden)
    return max(differences.items(), key=lambda item: item[1])


def test_every_golden_key_is_reproduced(model: Model, golden: Golden) -> None:
    differences = compare(model, golden)
    exact = ("position_ids", "vision_expert_mask", "greedy_tokens", "greedy_position_ids")
    wrong = {
        key: difference
        for key, difference in differences.items()
        if difference > (0 if key.endswith(exact) else FLOAT32_TOLERANCE)
    }
    assert not wrong
    assert len(differences) == 47


def test_bfloat16_is_as_close_as_the_released_code_in_bfloat16(golden: Golden) -> None:
    reference = load_golden("golden_bf16")
    model = open_golden_model("bfloat16")
    features = model.encode_image(golden["in.image"])
    assert float((features - golden["vit.features"]).abs().max()) < 0.01
    for case, image in (("one_image", features), ("text_only", None), ("multi_turn", features)):
        theirs = float((reference[f"{case}.logits"].float() - golden[f"{case}.logits"]).abs().max())
        tokens = golden[f"{case}.greedy_tokens"]
        ids = torch.cat((golden[f"{case}.input_ids"], tokens[None]), dim=1)
        types = F.pad(golden[f"{case}.token_type_ids"], (0, tokens.numel()))
        logits = model.forward(ids, types, image_features=image)[0]
        prompt = golden[f"{case}.logits"].shape[1]
        ours = float((logits[:prompt] - golden[f"{case}.logits"][0]).abs().max())
        # The released code is itself up to 0.34 away from float32 here.
        assert ours < 1.5 * max(theirs, 0.1)
        # Along the float32 answer no other token leads by more than that noise.
        steps = logits[prompt - 1 : -1]
        chosen = steps.gather(1, tokens[:, None]).squeeze(1)
        assert float((steps.amax(-1) - chosen).max()) < 0.4


def test_float16_gives_the_same_greedy_tokens(golden: Golden) -> None:
    differences = compare(open_golden_model("float16"), golden)
    for case in ("one_image", "text_only", "multi_turn"):
        assert differences[f"{case}.greedy_tokens"] == 0
        # 0.06 where the processor multiplies float16 itself, 0.05 where torch widens it first.
        assert differences[f"{case}.logits"] < 0.1


def test_exact_rope_equals_reference_rope_in_float32(golden: Golden) -> None:
    # The golden checkpoint holds float32 frequencies, so the two modes have nothing to disagree on.
    assert worst(open_golden_model(rope="exact"), golden)[1] < FLOAT32_TOLERANCE


def test_cached_decoding_equals_recomputing_everything(model: Model, golden: Golden) -> None:
    features = model.encode_image(golden["in.image"])
    for case, image in (("one_image", features), ("text_only", None), ("multi_turn", features)):
        ids, types = golden[f"{case}.input_ids"], golden[f"{case}.token_type_ids"]
        for step, token in enumerate(golden[f"{case}.greedy_tokens"].tolist()):
            logits = model.forward(ids, types, image_features=image)[0, -1]
            expected = golden[f"{case}.greedy_logits"][step]
            assert float((logits - expected).abs().max()) < FLOAT32_TOLERANCE
            assert int(logits.argmax()) == token
            ids = torch.cat((ids, torch.tensor([[token]])), dim=1)
            types = torch.cat((types, torch.zeros(1, 1, dtype=types.dtype)), dim=1)


def test_a_prompt_in_pieces_equals_a_prompt_in_one(model: Model, golden: Golden) -> None:
    from cogvlm2_lite.engine.chunk import Chunk
    from cogvlm2_lite.engine.runtime import run
    from cogvlm2_lite.events import Cancel

    ids, types = golden["multi_turn.input_ids"], golden["multi_turn.token_type_ids"]
    whole = make_chunk(ids, types)
    features = model.encode_image(golden["in.image"])
    cache = model.runtime.new_cache()
    end_of_image = int(types.sum()) + 1
    hidden = None
    for start, end in ((0, end_of_image), (end_of_image, 20), (20, ids.shape[1])):
        chunk = Chunk(
            input_ids=ids[:, start:end],
            image_mask=whole.image_mask[:, start:end],
            vision_mask=whole.vision_mask[:, start:end],
            position_ids=whole.position_ids[:, start:end],
            highest=int(whole.position_ids[:, start:end].max()),
            has_image=start == 0,
        )
        piece = features if chunk.has_image else None
        hidden = run(model.runtime.prefill(chunk, piece, cache, Cancel()))
    assert hidden is not None
    logits = model.runtime.compute_logits(hidden[:, -1:])[0, -1]
    assert float((logits - golden["multi_turn.logits"][0, -1]).abs().max()) < FLOAT32_TOLERANCE


def test_rope_tables_of_the_real_size_are_equal_to_the_bit() -> None:
    tables = load_packed(GOLDEN / "rope_tables_real.safetensors.xz")
    assert torch.equal(inverse_frequencies(128), tables["inv_freq_fp32"])
    for dtype, name, rows in (
        (torch.bfloat16, "bf16", 8192),
        (torch.float16, "fp16_first4096", 4096),
    ):
        # A float16 model too gets the frequencies that the checkpoint holds in bfloat16.
        table = rotary_table(tables["inv_freq_bf16"], rows, mode=RopeMode.REFERENCE, dtype=dtype)
        assert torch.equal(table.cos, tables[f"cos_{name}"])
        assert torch.equal(table.sin, tables[f"sin_{name}"])


def test_the_frequencies_come_from_the_checkpoint() -> None:
    tables = load_packed(GOLDEN / "rope_tables_real.safetensors.xz")
    stored = tables["inv_freq_bf16_if_computed_under_bf16_default"]
    table = rotary_table(stored, 512, mode=RopeMode.REFERENCE, dtype=torch.bfloat16)
    steps = torch.arange(512, dtype=torch.bfloat16)
    assert torch.equal(table.cos, torch.outer(steps, stored).cos())
    assert not torch.equal(table.cos, tables["cos_bf16"][:512])


def test_exact_rope_ignores_the_rounded_frequencies() -> None:
    tables = load_packed(GOLDEN / "rope_tables_real.safetensors.xz")
    table = rotary_table(tables["inv_freq_bf16"], 8192, mode=RopeMode.EXACT, dtype=torch.bfloat16)
    phases = torch.outer(torch.arange(8192).double(), tables["inv_freq_fp32"].double())
    assert table.cos.dtype == torch.float32
    assert float((table.cos.double() - phases.cos()).abs().max()) < 1e-3


def test_a_position_too_high_for_the_memory_spoils_nothing(model: Model) -> None:
    rotary = Rotary(
        model.config, RopeMode.REFERENCE, dtype=torch.float32, device=torch.device("cpu")
    )
    for vector in rotary.inv_freq:
        vector.value = inverse_frequencies(model.config.head_dim)
    high = model.config.max_position_embeddings + 3
    rotary.rotations(torch.tensor([[0]]), 0)
    with pytest.raises(RuntimeError):
        rotary.rotations(torch.tensor([[0]]), 2**44)
    (rotation, *_) = rotary.rotations(torch.tensor([[high]]), high)
    phases = high * inverse_frequencies(model.config.head_dim)
    cos = phases.double().cos().float()
    assert torch.equal(rotation.cos.flatten(), torch.cat((cos, cos)))


def test_a_float32_table_is_the_rounded_one_and_the_same_every_time() -> None:
    """A process of its own each time: torch's cosine is off in some, at its first call."""
    program = (
        "import torch, hashlib\n"
        "from cogvlm2_lite.model.rotary import RopeMode, inverse_frequencies, rotary_table\n"
        "f = inverse_frequencies(128)\n"
        "made = rotary_table(f, 8192, mode=RopeMode.REFERENCE, dtype=torch.float32)\n"
        "p = torch.outer(torch.arange(8192).float(), f).double()\n"
        "assert (made.cos - p.cos()).abs().max() < 6e-8\n"
        "assert (made.sin - p.sin()).abs().max() < 6e-8\n"
        "both = torch.stack([made.cos, made.sin])\n"
        "print(hashlib.sha256(both.numpy().tobytes()).hexdigest())\n"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True
        ).stdout
        for _ in range(3)
    }
    assert len(made) == 1


# The classic mistakes. Each is put into the code on purpose, and the comparison above must notice.


def eoi_to_the_vision_expert(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(model_module, "choose_vision_expert", lambda types: types == 1)


def positions_counting_every_patch(patch: pytest.MonkeyPatch) -> None:
    def count(types: object, mask: object = None) -> object:
        import numpy as np

        return np.broadcast_to(np.arange(types.shape[1]), types.shape).copy()  # type: ignore[attr-defined]

    patch.setattr(model_module, "derive_position_ids", count)


def a_pre_norm_vision_tower(patch: pytest.MonkeyPatch) -> None:
    def pre_norm(
        self: vision_module.VisionBlock, x: torch.Tensor, adapted: object = None
    ) -> torch.Tensor:
        x = x + self.dense(self.attend(self.qkv(self.attention_norm(x))))
        return x + self.fc2(F.gelu(self.fc1(self.mlp_norm(x))))

    patch.setattr(vision_module.VisionBlock, "__call__", pre_norm)


class TanhGelu:
    """torch.nn.functional with the approximate GELU."""

    def __getattr__(self, name: str) -> object:
        return getattr(F, name)

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(x, approximate="tanh")


def tanh_gelu_in_the_vision_tower(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(vision_module, "gelu_in_place", TanhGelu().gelu)


def tanh_gelu_in_the_projector(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(projector_module, "F", TanhGelu())


def inv_freq_recomputed_in_bfloat16(patch: pytest.MonkeyPatch) -> None:
    from cogvlm2_lite.model import rotary

    build = rotary.rotary_table

    def rebuild(inv_freq: torch.Tensor, positions: int, **options: object) -> object:
        rounded = inverse_frequencies(2 * inv_freq.numel()).bfloat16().float()
        return build(rounded, positions, **options)  # type: ignore[arg-type]

    patch.setattr(rotary, "rotary_table", rebuild)


def the_wrong_key_value_head_order(patch: pytest.MonkeyPatch) -> None:
    right = grouped_attention

    def wrong(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: object, **how: object
    ) -> torch.Tensor:
        # Query head h reads key head h % kv_heads instead of h // group.
        heads, kv_heads = q.shape[1], k.shape[1]
        order = torch.arange(heads).view(-1, kv_heads).T.flatten()
        out = right(q[:, order], k, v, mask, **how)  # type: ignore[arg-type]
        back = torch.argsort(order)
        split = out.view(*out.shape[:2], heads, -1)[:, :, back]
        return split.reshape(out.shape)

    patch.setattr(decoder_module, "grouped_attention", wrong)


def values_before_keys_in_the_fused_projection(patch: pytest.MonkeyPatch) -> None:
    right = decoder_module.DecoderBlock.attend

    def wrong(
        self: decoder_module.DecoderBlock, qkv: torch.Tensor, step: decoder_module.Step
    ) -> torch.Tensor:
        q, k, v = torch.split(qkv, self.sizes, dim=2)
        return right(self, torch.cat((q, v, k), dim=2), step)

    patch.setattr(decoder_module.DecoderBlock, "attend", wrong)


def transposed_vision_attention(patch: pytest.MonkeyPatch) -> None:
    # CogVLM2#56: attending over heads instead of tokens gives fluent text about another picture.
    def wrong(self: vision_module.VisionBlock, qkv: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = qkv.shape
        q, k, v = qkv.view(batch, tokens, 3, self.heads, -1).permute(2, 0, 1, 3, 4).unbind(0)
        return F.scaled_dot_product_attention(q, k, v).reshape(batch, tokens, -1)

    patch.setattr(vision_module.VisionBlock, "attend", wrong)


@pytest.mark.parametrize(
    "mistake",
    [
        eoi_to_the_vision_expert,
        positions_counting_every_patch,
        a_pre_norm_vision_tower,
        tanh_gelu_in_the_vision_tower,
        tanh_gelu_in_the_projector,
        inv_freq_recomputed_in_bfloat16,
        the_wrong_key_value_head_order,
        values_before_keys_in_the_fused_projection,
        transposed_vision_attention,
    ],
    ids=lambda mistake: mistake.__name__,
)
def test_a_classic_mistake_would_be_noticed(
    mistake: object, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake(monkeypatch)  # type: ignore[operator]
    assert worst(open_golden_model(), golden)[1] > 5 * FLOAT32_TOLERANCE
