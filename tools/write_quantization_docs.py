"""Write docs/quantization.md from benchmarks/results/: python tools/write_quantization_docs.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "formats.json"
PAGE = ROOT / "docs" / "quantization.md"

_BAR = 28


def write() -> None:
    """Write the page."""
    PAGE.write_text(render(json.loads(RESULT.read_text(encoding="utf-8"))), encoding="utf-8")


def render(report: dict[str, Any]) -> str:
    """Give the text of docs/quantization.md."""
    rows: dict[str, Any] = report["formats"]
    plain = rows[report["plain"]]
    machine = report["machine"]
    seeds = ", ".join(map(str, report["seeds"]))
    return f"""\
# What 4 bits cost

This page is written by `python -m benchmarks.formats`; `tools/write_quantization_docs.py` makes it
again from `benchmarks/results/formats.json`.

**No weights of the 19B model were at hand.** Every number here is of the demo model: 5.7 million
weights in the released architecture, trained on drawn pictures. It shows that the measuring works
and in which order formats and parts come *there*. It does not say how far a 4-bit 19B model is from
its original, and its order of parts may be another. To know that, run on the real folders

```bash
cogvlm2-lite compare cogvlm2-llama3-chat-19B cogvlm2-nf4 --samples my-pictures.jsonl
```

## How it is measured

Both models read the same held-out pictures, questions and right answers. At every word (token) of
the answers the probabilities of the next one are compared: KL(original || other) in nats. 0 is the
same model. Top-1 is the share of words at which both would say the same next. An answer counts as
changed when that fails at one of its words; as exact when every word of the right answer is the
model's first choice, which greedy decoding then gives. Both compute in float32, so that only the
stored weights differ. Brackets: 95 of 100 resamples of the pictures; words of one picture are not
counted as independent.

{plain["tokens"]} words of {plain["answers"]} answers about {plain["pictures"]} pictures (a question
without one counts as its own), seeds {seeds}, {report["pictures_per_seed"]} drawn pictures each.
Processor: {machine["processor"]}; torch {machine["torch"]}.

## Formats

Linear matrices in groups of 64; lm_head stays in 16 bits except where it is named; nothing is
calibrated. "Against NF4" divides the mean KL by that of {report["plain"]}, paired by picture.

| format | bits per weight | KL mean | KL 99 % | top-1 | changed | exact | against NF4 |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{_table(rows)}
The original answers {plain["reference_exact"]["value"]:.1%} exactly. Bits per weight are over all
tensors of this small model, whose 16-bit tables weigh more than the real one's.

```text
mean KL against NF4
{_plot(rows)}
```

The ratio for each seed:

| format | {" | ".join(f"seed {seed}" for seed in report["seeds"])} |
| --- |{" ---: |" * len(report["seeds"])}
{_by_seed(rows)}
## What can be read from it

- FP4, what the released int4 folders hold, has {_span(rows["FP4, as released"]["against_plain"])}
  times the KL of NF4 in the same 4 bits.
- int8 throughout has {_span(rows["int8"]["against_plain"])} of it.
- The rows with one part in int8 say what that part's NF4 costs: what is missing to 1.
- A bracket that holds 1 means that these pictures do not decide. A few words on which the model
  wavers make most of the mean, so the seeds differ by more than one would like.
- Exact match does not tell the formats apart on a model this robust.
"""


def _table(rows: dict[str, Any]) -> str:
    return "".join(
        f"| {name} | {row['bits_per_weight']:.2f} | {row['kl_mean']['value']:.5f} "
        f"[{row['kl_mean']['low']:.5f}, {row['kl_mean']['high']:.5f}] "
        f"| {row['kl_p99']['value']:.4f} | {row['top1']['value']:.2%} "
        f"| {row['changed']['value']:.1%} | {row['other_exact']['value']:.1%} "
        f"| {_span(row['against_plain'])} |\n"
        for name, row in rows.items()
    )


def _by_seed(rows: dict[str, Any]) -> str:
    return "".join(
        f"| {name} | {' | '.join(_span(one) for one in row['against_plain_by_seed'])} |\n"
        for name, row in rows.items()
    )


def _plot(rows: dict[str, Any]) -> str:
    most = max(row["against_plain"]["value"] for row in rows.values())
    return "\n".join(
        f"{name:27} {'█' * round(_BAR * row['against_plain']['value'] / most):{_BAR}} {_of(row)}"
        for name, row in rows.items()
    )


def _of(row: dict[str, Any]) -> str:
    value: float = row["against_plain"]["value"]
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _span(measured: dict[str, float]) -> str:
    form = ".2f" if measured["value"] >= 0.1 else ".4f"
    low, high = format(measured["low"], form), format(measured["high"], form)
    return f"{format(measured['value'], form)} [{low}, {high}]"


if __name__ == "__main__":
    write()
