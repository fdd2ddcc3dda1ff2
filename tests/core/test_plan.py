"""The memory plan is arithmetic that can be checked by hand."""

from __future__ import annotations

import pytest

from cogvlm2_lite.errors import DoesNotFitError
from cogvlm2_lite.memory.phases import PARTS, Phase
from cogvlm2_lite.memory.plan import plan_memory
from cogvlm2_lite.units import GIB
from cogvlm2_lite.weights.names import Part, expected_tensors
from tests.core.shapes import REAL


def released_sizes() -> dict[Part, int]:
    sizes = dict.fromkeys(Part, 0)
    for spec in expected_tensors(REAL).values():
        sizes[spec.part] += 2 * spec.numel
    return sizes


def test_the_real_model_has_1221_tensors_and_39_006_214_656_bytes() -> None:
    specs = expected_tensors(REAL)
    assert len(specs) == 1221
    assert sum(2 * spec.numel for spec in specs.values()) == 39_006_214_656
    assert REAL.vision.image_tokens == 2306
    assert REAL.kv_bytes_per_token == 128 * 1024


def test_decoding_and_text_touch_no_vision_weights() -> None:
    vision = {Part.VISION, Part.PROJECTOR, Part.VISION_EXPERT}
    assert not PARTS[Phase.DECODE] & vision
    assert not PARTS[Phase.PREFILL_TEXT] & vision
    assert set().union(*PARTS.values()) == set(Part)


def test_the_plan_adds_up() -> None:
    plan = plan_memory(
        REAL, released_sizes(), device="cpu", budget_bytes=64 * GIB, itemsize=2, context=4096
    )
    assert plan.weight_bytes == 39_006_214_656
    by_phase = {p.phase: p for p in plan.phases}
    assert by_phase[Phase.ENCODE].cache_bytes == 0
    assert by_phase[Phase.DECODE].cache_bytes == 4096 * 128 * 1024
    assert by_phase[Phase.DECODE].weight_bytes == (6_979_321_856 + 2 * 525_336_576 + 268_288) * 2
    assert plan.peak_bytes >= plan.weight_bytes + max(p.scratch_bytes for p in plan.phases)
    assert plan.as_dict()["peak_bytes"] == plan.peak_bytes
    assert "language expert" in plan.table()


def test_what_does_not_fit_says_how_much_is_missing() -> None:
    with pytest.raises(DoesNotFitError, match=r"GiB are missing") as caught:
        plan_memory(REAL, released_sizes(), device="cpu", budget_bytes=24 * GIB, itemsize=2)
    assert "quantize" in caught.value.hint
