"""The phases of an answer, and the parts of the model that each touches (spec, section 14)."""

from __future__ import annotations

from enum import Enum

from cogvlm2_lite.weights.names import Part


class Phase(Enum):
    """What the engine is doing; each phase needs other weights."""

    ENCODE = "encode"  # picture -> image features
    PREFILL_IMAGE = "prefill with picture"
    PREFILL_TEXT = "prefill of text"
    DECODE = "decode"


_DECODER = frozenset({Part.LANGUAGE_EXPERT, Part.NORMS, Part.EMBEDDING})

PARTS: dict[Phase, frozenset[Part]] = {
    Phase.ENCODE: frozenset({Part.VISION, Part.PROJECTOR}),
    Phase.PREFILL_IMAGE: _DECODER | {Part.VISION_EXPERT},
    Phase.PREFILL_TEXT: _DECODER,
    Phase.DECODE: _DECODER | {Part.LM_HEAD},
}
"""Decoding never brings the vision experts in: no image token can appear. The first token's scores
belong to decoding: prefill ends with hidden states and needs no lm_head."""
