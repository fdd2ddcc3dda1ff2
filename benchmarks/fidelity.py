"""Compare every golden number of the released code with ours, and write docs/fidelity.md.

python -m benchmarks.fidelity
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.helpers.goldens import compare, load_golden, open_golden_model  # noqa: E402

HEAD = """\
# Fidelity: our numbers compared with the released code's

The released code was run on a tiny checkpoint with random weights in the released layout, in
float32 on a CPU. `tests/golden/a` holds the checkpoint, the inputs and every output. The table
shows, for each key, the largest absolute difference when CogVLM2 Lite computes the same in float32
and, for information, in bfloat16 and float16, where the released code itself differs by up to 0.34
from its float32 logits. Ids, types, positions, expert masks and greedy tokens must be equal (0).

`python -m benchmarks.fidelity` writes this page. `tests/core/test_goldens.py` limits the float32
column to 2e-4 and puts nine typical mistakes into the code to show that each would be noticed. The
real weights were not available: this page proves the mathematics, not the answers of the 19B model.

These are equal bit for bit, too: preprocessing (`preprocess_golden.safetensors.xz`), prompts
(`prompts.json`), and the RoPE tables of the real size in bfloat16 and float16
(`rope_tables_real.safetensors.xz`).

In half precision, greedy tokens may differ where two candidates are closer than the rounding error;
such rows show "differs".

| key | float32 | bfloat16 | float16 |
| --- | ---: | ---: | ---: |
"""


def main() -> None:
    """Compute all keys in three types and write the page."""
    golden = load_golden()
    columns = [
        compare(open_golden_model(dtype), golden) for dtype in ("float32", "bfloat16", "float16")
    ]
    rows = [
        f"| `{key}` | {' | '.join(_cell(key, column[key]) for column in columns)} |"
        for key in sorted(golden)
        if key in columns[0]
    ]
    path = ROOT / "docs" / "fidelity.md"
    path.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {len(rows)} keys, float32 at most {max(columns[0].values())}")


def _cell(key: str, difference: float) -> str:
    if difference == 0:
        return "0"
    return "differs" if key.endswith("greedy_tokens") else f"{difference:.1e}"


if __name__ == "__main__":
    main()
