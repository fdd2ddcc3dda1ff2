"""Recomputes every golden number with our code, through the same pieces that answer questions.

`compare` gives, for each key of a golden file, the largest absolute difference (0 for ids, types,
positions, masks and tokens that are equal). The tests hold it against tolerances, and
`benchmarks/fidelity.py` writes it into docs/fidelity.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

import cogvlm2_lite
from cogvlm2_lite.architectures.architecture import Phase
from cogvlm2_lite.engine.chunk import Chunk
from cogvlm2_lite.engine.model import Model
from cogvlm2_lite.engine.runtime import run
from cogvlm2_lite.events import Cancel
from cogvlm2_lite.inputs import prompt
from cogvlm2_lite.model.kv_cache import KVCache

GOLDEN = Path(__file__).parents[1] / "golden"
CHECKPOINT = GOLDEN / "a" / "checkpoint"
CASES = ("one_image", "text_only", "multi_turn", "image_mid", "two_images")

Golden = dict[str, Tensor]


def load_golden(name: str = "golden_fp32") -> Golden:
    """Read a golden file of preset a."""
    return load_file(GOLDEN / "a" / f"{name}.safetensors")


def open_golden_model(dtype: str = "float32", rope: str = "reference") -> Model:
    """Open the tiny checkpoint that the goldens were made with."""
    return cogvlm2_lite.load(CHECKPOINT, device="cpu", dtype=dtype, rope=rope)


def compare(model: Model, golden: Golden) -> dict[str, float]:
    """Recompute all keys; gives key -> largest absolute difference."""
    ours = dict(_recompute(model, golden))
    keys = [key for key in golden if not key.startswith("in.") and not _given(key)]
    missing = sorted(set(keys) - set(ours))
    assert not missing, f"keys that nothing recomputes: {missing}"
    return {key: _distance(ours[key], golden[key]) for key in keys}


def _given(key: str) -> bool:
    """Inputs of the cases; everything else is an output to be reproduced."""
    return key.endswith((".input_ids", ".token_type_ids", ".attention_mask"))


def _distance(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} is not {tuple(theirs.shape)}"
    return float((ours.double() - theirs.double()).abs().max())


def _recompute(model: Model, golden: Golden) -> Iterator[tuple[str, Tensor]]:
    yield from vision_stages(model, golden["in.image"])
    yield "vit.features_image2", model.encode_image(golden["in.image2"])
    first, second = (model.encode_image(golden[f"in.{name}"]) for name in ("image", "image2"))
    for case in CASES:
        features = {"text_only": None, "two_images": torch.cat((first, second))}.get(case, first)
        yield from _case(model, golden, case, features)
    yield from _left_padded(model, golden, first)


def vision_stages(model: Model, image: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Encode a picture, keeping what stands between the stages."""
    runtime = model.runtime
    walk = runtime.residency.walk
    hidden = image.to(runtime.dtype)
    with runtime.residency.phase(Phase.ENCODE):
        for embedding in walk([runtime.parts.tower.embedding]):
            hidden = embedding(hidden)
        yield "vit.patch_embedding", hidden
        for layer, block in enumerate(walk(runtime.parts.tower.blocks)):
            hidden = block(hidden)
            yield f"vit.layer{layer}", hidden
        for projector in walk([runtime.parts.projector]):
            tokens = projector.downsample(hidden)
            yield "vit.conv_tokens", tokens
            yield "vit.glu_out", projector.project(tokens)
            yield "vit.features", projector(hidden)


def _case(
    model: Model, golden: Golden, case: str, features: Tensor | None
) -> Iterator[tuple[str, Tensor]]:
    ids, types = golden[f"{case}.input_ids"], golden[f"{case}.token_type_ids"]
    positions = torch.from_numpy(prompt.derive_position_ids(types.numpy()))
    yield f"{case}.position_ids", positions
    mask = torch.from_numpy(prompt.choose_vision_expert(types.numpy()))
    yield f"{case}.vision_expert_mask", mask.to(torch.uint8)
    yield f"{case}.logits", model.forward(ids, types, image_features=features)
    chunk = make_chunk(ids, types)
    cache = model.runtime.new_cache()
    if f"{case}.hidden0" in golden:
        for layer, hidden in enumerate(hidden_states(model, chunk, features, cache)):
            yield f"{case}.hidden{layer}", hidden
        for number in range(len(model.runtime.parts.decoder.blocks)):
            k, v = cache.layer(number)
            yield f"{case}.k{number}", k
            yield f"{case}.v{number}", v
    if f"{case}.greedy_tokens" in golden:
        yield from _greedy(model, golden, case, chunk, features)


def make_chunk(ids: Tensor, types: Tensor) -> Chunk:
    """Make a whole prompt [1, tokens] one piece, with derived positions and experts."""
    positions = prompt.derive_position_ids(types.numpy())
    return Chunk(
        input_ids=ids,
        image_mask=types == 1,
        vision_mask=torch.from_numpy(prompt.choose_vision_expert(types.numpy())),
        position_ids=torch.from_numpy(positions),
        highest=int(positions.max()),
        has_image=bool((types == 1).any()),
    )


def hidden_states(
    model: Model, chunk: Chunk, features: Tensor | None, cache: KVCache
) -> list[Tensor]:
    """Return what goes into each layer, and the final norm's output instead of the last one's."""
    states: list[Tensor] = []
    runtime = model.runtime
    watched = [_Watched(block, states) for block in runtime.parts.decoder.blocks]
    unwatched, runtime.parts.decoder.blocks = runtime.parts.decoder.blocks, watched  # type: ignore[assignment]
    try:
        last = run(runtime.prefill(chunk, features, cache, Cancel()))
    finally:
        runtime.parts.decoder.blocks = unwatched
    with runtime.residency.phase(Phase.DECODE):
        for head in runtime.residency.walk([runtime.parts.decoder.head]):
            states.append(head.norm(last))
    return states


class _Watched:
    """A decoder block that notes what goes into it."""

    def __init__(self, block: object, states: list[Tensor]) -> None:
        self._block, self._states = block, states

    def __call__(self, hidden: Tensor, step: object) -> Tensor:
        self._states.append(hidden.clone())
        return self._block(hidden, step)  # type: ignore[operator]

    def slots(self) -> object:
        return self._block.slots()  # type: ignore[attr-defined]


def _greedy(
    model: Model, golden: Golden, case: str, chunk: Chunk, features: Tensor | None
) -> Iterator[tuple[str, Tensor]]:
    """Decode greedily with the cache; the scores of each step are those of a full recompute too."""
    steps = golden[f"{case}.greedy_tokens"].numel()
    runtime, cache = model.runtime, model.runtime.new_cache()
    hidden = run(runtime.prefill(chunk, features, cache, Cancel()))
    logits = runtime.compute_logits(hidden[:, -1:])[0, -1]
    position = chunk.highest
    tokens, scores, positions = [], [], []
    for _ in range(steps):
        tokens.append(int(logits.argmax()))
        scores.append(logits)
        positions.append(position)  # of the token whose scores these are
        position += 1
        logits = runtime.decode_one_token(tokens[-1], position, cache)
    yield f"{case}.greedy_tokens", torch.tensor(tokens)
    yield f"{case}.greedy_logits", torch.stack(scores)
    yield f"{case}.greedy_position_ids", torch.tensor(positions)


def _left_padded(model: Model, golden: Golden, features: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A batch of two; both rows show the first picture, and padding rows are not compared."""
    types, mask = golden["leftpad.token_type_ids"], golden["leftpad.attention_mask"]
    positions = prompt.derive_position_ids(types.numpy(), mask.numpy())
    yield "leftpad.position_ids", torch.from_numpy(positions)
    logits = model.forward(
        golden["leftpad.input_ids"],
        types,
        image_features=torch.cat((features, features)),
        attention_mask=mask,
    )
    real = (mask == 1).unsqueeze(-1)
    yield "leftpad.logits", torch.where(real, logits, golden["leftpad.logits"])
