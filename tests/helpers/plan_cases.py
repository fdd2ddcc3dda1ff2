"""Models and workloads of every shape, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from cogvlm2_lite.architectures.architecture import ModelConfig
from cogvlm2_lite.config import parse_config
from cogvlm2_lite.kv_kind import KVKind
from cogvlm2_lite.memory.plan import Workload
from tests.helpers.shapes import REAL_JSON


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    layers = draw(st.integers(1, 9))
    grid = draw(st.integers(2, 12))
    return parse_config(
        {
            **REAL_JSON,
            "num_hidden_layers": layers,
            "hidden_size": 64 * draw(st.integers(1, 4)),
            "intermediate_size": 64 * draw(st.integers(1, 6)),
            "num_attention_heads": 4,
            "num_multi_query_heads": draw(st.sampled_from([1, 2, 4])),
            "vocab_size": draw(st.integers(128, 4000)),
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 3,
            "vision_config": {
                **REAL_JSON["vision_config"],
                "num_hidden_layers": draw(st.integers(1, 9)),
                "hidden_size": 64 * draw(st.integers(1, 3)),
                "intermediate_size": 64 * draw(st.integers(1, 6)),
                "num_heads": 4,
                "image_size": 14 * grid,
                "num_positions": grid**2 + 1,
            },
        }
    )


workloads = st.builds(
    Workload,
    context=st.integers(16, 4096),
    with_picture=st.booleans(),
    itemsize=st.sampled_from([2, 4]),
    kv=st.sampled_from(KVKind),
    parallel=st.integers(1, 5),
)
